"""The program as a process: whatever its output is, an error is one line."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from checkout import ROOT
from conftest import picture
from served import write_model

from gender_classifier.cli import store
from gender_classifier.cli.main import main
from gender_classifier.common import paths
from gender_classifier.errors import needs_extra
from gender_classifier.track.experiments import find_dvc_experiments
from gender_classifier.track.identity import describe_source
from gender_classifier.version import __version__

PROGRAM = [sys.executable, "-m", "gender_classifier"]


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` in a shell, ``$PROGRAM`` being ours."""
    environment = {**os.environ, "PROGRAM": " ".join(PROGRAM), **variables}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, check=False)


def test_the_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("$PROGRAM --version", tmp_path).stdout.decode() == f"gender-classifier {__version__}\n"
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"gender-classifier {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predcit face.jpg", "unknown command 'predcit'; did you mean predict?\n"),
        ("train", "unknown command 'train'; known are sync, ui, promote, rollback, predict, "),
        ("ui --port 70000", "argument --port: '70000' is not a port from 1 to 65535\n"),
    ],
)
def test_wrong_usage_names_what_is_known(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model, beside an image."""
    path = write_model(tmp_path_factory.mktemp("model") / "model.onnx")
    path.with_name("größe.jpg").write_bytes(picture(1))
    return path


def test_a_subcommand_loads_no_other(model: Path) -> None:
    """Importing the other nine takes longer than a prediction."""
    code = (
        "import sys; from gender_classifier.cli.main import main; status = main(sys.argv[1:])\n"
        "print(*sorted(name for name in sys.modules if name.startswith('gender_classifier.cli.')), file=sys.stderr)"
    )
    arguments = ["predict", "größe.jpg", "--model", "model.onnx"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=model.parent, capture_output=True, text=True, check=True
    )
    loaded = {name.rpartition(".")[2] for name in done.stderr.splitlines()[-1].split()}
    assert loaded == {"main", "options", "predict", "reporting"}


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_a_full_disk_is_one_line(model: Path, format: str) -> None:
    done = run(f"$PROGRAM predict größe.jpg --model model.onnx --format {format} > /dev/full", model.parent)
    assert done.returncode == 1
    assert done.stderr.decode().endswith("error: No space left on device\n")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away_is_no_error(model: Path) -> None:
    done = run("{ $PROGRAM --help; echo $? >&2; } | true", model.parent)
    assert done.stderr.decode() in ("141\n", "0\n")  # by whether it was gone when the help was written


def test_closed_streams_lose_nothing_else(model: Path) -> None:
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        done = run(f"$PROGRAM predict größe.jpg --model model.onnx {closed}", model.parent)
        assert done.returncode == 0
        assert done.stderr.startswith(b"" if "2>&-" in closed else b"gender-classifier predict: 1 image: 1 ")
        assert done.stderr.count(b"\n") == ("2>&-" not in closed)
    done = run("$PROGRAM predict missing.jpg --model model.onnx >&-", model.parent)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_in_another_encoding_gets_escapes(model: Path, encoding: str) -> None:
    model.with_name("猫.jpg").write_bytes(picture(2))
    done = run("$PROGRAM predict 猫.jpg fehlt-猫.jpg --model model.onnx", model.parent, PYTHONIOENCODING=encoding)
    assert done.returncode == 1  # one is missing
    assert b"\\u732b.jpg" in done.stdout
    assert b"fehlt-\\u732b.jpg: " in done.stderr


def test_an_error_of_the_system_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    monkeypatch.setattr(store, "sync", fail)
    assert main(["sync"]) == 1
    assert capsys.readouterr().err == f"gender-classifier sync: error: {tmp_path}/x: Permission denied\n"


def test_git_need_not_be_there(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", str(root))
    assert find_dvc_experiments(root) == []
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "sync: 0 runs completed, 0 marked KILLED, 0 experiment names added\n"
    assert "mlflow.source.git.commit" not in describe_source("train", root)


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("No username set")])
def test_a_user_need_not_have_a_name(error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("getpass.getuser", fail)
    assert describe_source("train", root)["mlflow.user"] == str(os.getuid())


@pytest.mark.parametrize("command", ["predict", "monitor", "quantize int8.onnx", "serve"])
def test_a_shipped_model_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path)
    (tmp_path / "a.jpg").write_bytes(picture(1))
    images = [] if command == "serve" else [str(tmp_path / "a.jpg")]
    assert main([*command.split(), *images, "--model", "pretrained"]) == 1
    assert f"{tmp_path}/model.onnx: no such file; make it in a checkout with" in capsys.readouterr().err


def test_the_shipped_model_classifies(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", model.parent)
    assert main(["predict", str(model.with_name("größe.jpg")), "--model", "pretrained", "--format", "json"]) == 0
    assert '"probs": {"female": ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("mlflow", "pipeline", "sync"),
        ("dvc", "pipeline", "ui"),
        ("mlflow", "pipeline", "promote 1"),
        ("sqlalchemy", "pipeline", "rollback"),
        ("mlflow", "pipeline", "predict größe.jpg --model models:/gender-classifier@champion"),
        ("dlib", "faces", "predict --faces größe.jpg --model model.onnx"),
        ("matplotlib", "plot", "monitor größe.jpg --plot drift.png --model model.onnx"),
        ("onnx", "quantize", "quantize int8.onnx größe.jpg --model model.onnx"),
        ("scipy", "calibrate", "calibrate own.onnx faces --model model.onnx"),
        ("uvicorn", "serve", "serve --model model.onnx"),
        ("pydantic", "serve", "serve --model model.onnx"),
    ],
)
def test_a_missing_package_is_one_line_with_its_extra(model: Path, package: str, extra: str, arguments: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from gender_classifier.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], cwd=model.parent, capture_output=True, text=True, check=False
    )
    command = arguments.split(maxsplit=1)[0]
    assert done.returncode == 1
    assert done.stderr == (
        f"gender-classifier {command}: error: {package} is not installed; "
        f"install the extra `{extra}`: in the checkout, `pip install -e '.[{extra}]'`\n"
    )


def test_a_mistake_in_our_own_imports_is_no_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError), needs_extra("serve"):
        import_module("gender_classifier.serve.nothing")


@pytest.mark.parametrize("stage", ["ingest", "train"])
def test_a_stage_without_its_packages_is_one_line(stage: str) -> None:
    script = str(ROOT / "stages" / f"{stage}.py")
    done = subprocess.run(
        [sys.executable, "-S", script], env={}, capture_output=True, text=True, check=False
    )  # no site-packages
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{stage}: error: torch is not installed; "
        "install the extra `pipeline`: in the checkout, `pip install -e '.[pipeline]'`\n"
    )
