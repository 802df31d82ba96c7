"""``gender-classifier predict`` as its users meet it: a process with arguments, streams and an exit status."""

import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import encode, picture
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gender_classifier.cli.predict import _choose_writer
from gender_classifier.data.names import CLASSES, SAMPLE_NOTE
from gender_classifier.monitor.collect import _read_log
from gender_classifier.predict.predictor import Prediction, Predictor
from gender_classifier.serve.app import Settings

SRC = str(Path(__file__).parents[2] / "src")
COMMAND = [sys.executable, "-m", "gender_classifier", "predict"]


@pytest.fixture
def folder(tmp_path: Path, served_model: Path) -> Path:
    """Return a folder with `models/model.onnx`, three images and a file that is none."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.onnx").symlink_to(served_model)
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(picture(seed))
    (tmp_path / "photos" / "1b.jpg").write_bytes(picture(1)[:-400])
    return tmp_path


def run(folder: Path, *arguments: str, data: bytes = b"", status: int = 0) -> tuple[str, str]:
    environment = os.environ | {"PYTHONPATH": SRC, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, input=data, capture_output=True, check=False, env=environment
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, err
    assert "Traceback" not in err
    return out, err


def expected(served_model: Path, *seeds: int) -> np.ndarray:
    predictor = Predictor(served_model)
    return predictor.compute_probs(np.stack([predictor.prepare(picture(seed)) for seed in seeds]))


def test_a_table_goes_on_past_an_unreadable_picture(folder: Path, served_model: Path) -> None:
    out, err = run(folder, "photos", status=1)
    header, *rows = out.splitlines()
    assert header.split() == ["label", "probability", "unfamiliar", "name"]
    probs = expected(served_model, 0, 1, 2)
    labels, shown, _, names = zip(*(row.rsplit(maxsplit=3) for row in rows), strict=True)
    assert labels == tuple(f"uncertain, rather {CLASSES[number]}" for number in probs.argmax(axis=1))
    assert [float(prob) for prob in shown] == pytest.approx(probs.max(axis=1), abs=1e-4)
    assert names == tuple(f"photos/{seed}.jpg" for seed in range(3))
    assert {row.index("photos/") for row in rows} == {header.index("name")}  # aligned
    assert err.startswith("gender-classifier predict: photos/1b.jpg: cannot be decoded to its end (")
    assert err.splitlines()[1:] == [
        "gender-classifier predict: 3 images: 3 uncertain (below 0.8); 1 not read (see above)"
    ]


def test_a_table_ends_with_what_was_found(folder: Path, served_model: Path) -> None:
    called = [("female", "male")[place] for place in expected(served_model, 0, 1, 2).argmax(axis=1)]
    counts = ", ".join(f"{called.count(name)} {name}" for name in ("female", "male") if name in called)
    _, err = run(folder, *(f"photos/{seed}.jpg" for seed in range(3)), "--threshold", "0")
    assert err == f"gender-classifier predict: 3 images: {counts}\n"
    for format in ("json", "csv"):
        assert run(folder, "photos/0.jpg", "--format", format)[1] == ""


def test_a_limit_on_pixels_is_the_pages_or_ones_own(folder: Path) -> None:
    (folder / "large.png").write_bytes(encode(np.tile(np.arange(250, dtype=np.uint8), (5001, 20)), "PNG"))
    out, err = run(folder, "large.png", status=1)  # 5,000 x 5,001
    assert out == ""
    assert "large.png: " in err
    assert f"{Settings().max_pixels:,}" in err.replace("25000000", "25,000,000")
    run(folder, "large.png", "--max-pixels", "25005000")
    for wrong in ("0", "-1", "x"):
        run(folder, "large.png", "--max-pixels", wrong, status=2)


def test_json_is_an_object_a_line_with_errors_in_their_place(folder: Path, served_model: Path) -> None:
    out, err = run(folder, "photos", "--format", "json", "--threshold", "0", status=1)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["name"] for row in rows] == ["photos/0.jpg", "photos/1.jpg", "photos/1b.jpg", "photos/2.jpg"]
    assert set(rows[2]) == {"name", "error"}
    good = [row for row in rows if "error" not in row]
    probs = expected(served_model, 0, 1, 2)
    np.testing.assert_allclose([list(row["probs"].values()) for row in good], probs, atol=1e-5)
    assert list(good[0]["probs"]) == ["female", "male"]
    for row in good:
        assert row["prob"] == row["probs"][row["label"]] == max(row["probs"].values())
        assert type(row["unfamiliar"]) is bool
    assert "photos/1b.jpg" in err


def test_csv_has_a_header_and_as_many_fields_in_every_row(folder: Path) -> None:
    (folder / "photos" / 'a, "b"\nc.jpg').write_bytes(picture(5))
    out, _ = run(folder, "photos", "--format", "csv", status=1)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["name", "label", "prob", "prob_female", "prob_male", "unfamiliar", "error"]
    assert {len(row) for row in rows} == {7}
    assert [row[5] in ("true", "false") for row in rows[1:]] == [True, True, False, True, True]
    assert rows[-1][0] == 'photos/a, "b"\nc.jpg'
    assert [bool(row[6]) for row in rows[1:]] == [False, False, True, False, False]


def test_standard_input_and_archives_are_read(folder: Path) -> None:
    with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
        archive.writestr("a/1.jpg", picture(1))
    (folder / "faces.zip").touch()
    out, _ = run(folder, "-", "faces.zip", "--format", "json", data=picture(1))
    stdin, member = (json.loads(line) for line in out.splitlines())
    assert (stdin.pop("name"), member.pop("name")) == ("-", "faces.zip/a/1.jpg")
    assert stdin == member
    _, err = run(folder, "-", status=1)
    assert err.splitlines()[0] == "gender-classifier predict: -: the file is empty"
    assert err.splitlines()[1:] == ["gender-classifier predict: 0 images; 1 not read (see above)"]


def test_the_page_and_the_command_have_one_threshold(folder: Path, served_model: Path) -> None:
    highest = float(expected(served_model, 0).max())
    assert highest < Settings().threshold == 0.8
    assert json.loads(run(folder, "photos/0.jpg", "--format", "json")[0])["label"] == "uncertain"


def test_below_the_threshold_it_is_uncertain(folder: Path, served_model: Path) -> None:
    highest = float(expected(served_model, 0).max())
    for threshold, label in ((highest - 1e-4, None), (highest + 1e-4, "uncertain")):
        out, _ = run(folder, "photos/0.jpg", "--format", "json", "--threshold", str(max(0.5, threshold)))
        row = json.loads(out)
        assert (row["label"] == "uncertain") == (label == "uncertain")
        assert row["prob"] == pytest.approx(highest, abs=1e-5)


def test_what_leads_to_nothing_is_one_line_each_and_status_1(folder: Path) -> None:
    out, err = run(folder, "nowhere.jpg", "*.bmp", "photos/0.jpg", status=1)
    assert "photos/0.jpg" in out
    lines = err.splitlines()
    assert lines[0] == "gender-classifier predict: nowhere.jpg: no such file or folder"
    assert lines[1].startswith("gender-classifier predict: *.bmp: holds no image")
    assert lines[2:] == ["gender-classifier predict: 1 image: 1 uncertain (below 0.8); 2 not read (see above)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: PATH"),
        (["a.jpg", "--threshold", "1.3"], "'1.3' is not a probability from 0 to 1"),
        (["a.jpg", "--threshold", "high"], "'high' is not a probability from 0 to 1"),
        (["a.jpg", "--threshold", "nan"], "'nan' is not a probability"),
        (["a.jpg", "--format", "xml"], "invalid choice: 'xml'"),
        (["a.jpg", "--draw", "out"], "--draw needs --faces"),
        (["a.jpg", "--treshold", "0.9"], "unrecognized arguments: --treshold 0.9; did you mean --threshold?"),
        (["a.jpg", "--colour"], "gender-classifier predict: error: unrecognized arguments: --colour\n"),
    ],
)
def test_wrong_usage_is_status_2(folder: Path, arguments: list[str], message: str) -> None:
    _, err = run(folder, *arguments, status=2)
    assert message in err
    assert err.startswith("usage: gender-classifier predict ")


def test_unfamiliar_images_are_counted_with_what_may_help(folder: Path) -> None:
    (folder / "grey.png").write_bytes(encode(np.full((80, 80, 3), 128, np.uint8), "PNG"))
    (row,) = [json.loads(line) for line in run(folder, "grey.png", "--format", "json")[0].splitlines()]
    assert row["unfamiliar"] is True
    _, err = run(folder, "grey.png", "photos/0.jpg", "--threshold", "0")
    assert re.fullmatch(
        r"gender-classifier predict: 2 images: .*; 1 unfamiliar \(if they are no tight crops, --faces finds the faces\)\n",
        err,
    )


def test_a_model_of_the_drawn_sample_says_so(folder: Path) -> None:
    model = onnx.load(folder / "models" / "model.onnx")
    onnx.helper.set_model_props(
        model, {prop.key: prop.value for prop in model.metadata_props} | {"limits": f"> {SAMPLE_NOTE}"}
    )
    onnx.save(model, folder / "drawn.onnx")
    _, err = run(folder, "photos/0.jpg", "--model", "drawn.onnx")
    assert err.splitlines()[1:] == [
        "gender-classifier predict: the model was trained on drawings, the built-in sample: its labels say nothing about "
        "photographs; see --model pretrained"
    ]


def test_a_missing_model_says_what_to_do(folder: Path) -> None:
    _, err = run(folder, "photos/0.jpg", "--model", "none.onnx", status=1)
    assert err == (
        "gender-classifier predict: error: none.onnx: no such file; give --model pretrained or another path, or make it: "
        "`dvc repro`\n"
    )


def test_the_checkout_s_model_is_found_from_a_folder_below(folder: Path) -> None:
    (folder / "dvc.yaml").touch()
    out, _ = run(folder / "photos", "0.jpg")
    assert "0.jpg" in out


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    for number in range(400):
        (folder / "photos" / f"x{number}.jpg").write_bytes(picture(2))
    with subprocess.Popen(
        [*COMMAND, "photos", "--format", "json"], cwd=folder, env=os.environ | {"PYTHONPATH": SRC},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(30) == 141
    assert all(line.startswith("gender-classifier predict: photos/1b.jpg") for line in err.splitlines())


def test_ctrl_c_is_status_130_without_a_traceback(folder: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "photos/0.jpg", "-", "--format", "json"], cwd=folder, env=os.environ | {"PYTHONPATH": SRC},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell that started the tests in the background made SIGINT ignored, by all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()  # the first row is there while the second is waited for
        # A worker reads a standard input that nobody closes.
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_ctrl_c_between_two_rows_does_not_wait_for_a_worker_that_reads(folder: Path) -> None:
    code = (
        "import sys, time\n"
        "from gender_classifier.cli import main as cli, predict as predict_command\n"
        "def write(*_):\n"
        "    time.sleep(1)  # a worker reads standard input by now\n"
        "    raise KeyboardInterrupt\n"
        "predict_command._choose_writer = lambda *_, **__: write\n"
        "sys.exit(cli.main(['predict', 'photos/0.jpg', '-']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": SRC}, stdin=subprocess.PIPE
    ) as process:
        try:
            assert process.wait(20) == 130
        finally:
            process.kill()


def test_names_that_are_no_text_break_no_format(folder: Path) -> None:
    bad = os.fsdecode(b"photos/\xff\x1b[31m.jpg")
    (folder / bad).write_bytes(picture(1))
    table, _ = run(folder, bad)
    assert "\x1b" not in table
    assert r"photos/\udcff\x1b[31m.jpg" in table
    row, _ = run(folder, bad, "--format", "json")
    assert json.loads(row)["name"] == bad
    command = [*COMMAND, bad, "--format", "csv"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, env=os.environ | {"PYTHONPATH": SRC})
    assert done.stdout.splitlines()[1].startswith(os.fsencode(bad))


@pytest.mark.parametrize("rows_on_terminal", [False, True])
def test_progress_is_for_a_terminal_that_the_rows_do_not_go_to(folder: Path, rows_on_terminal: bool) -> None:
    """Through a real pseudo-terminal. The bar comes after a second of work, so a slow writer holds it up."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    reader, writer = os.pipe()
    stdout = child if rows_on_terminal else subprocess.DEVNULL
    command = [*COMMAND, *["photos/0.jpg"] * 30, "-"]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": SRC, "TERM": "xterm"},
                               stdin=reader, stdout=stdout, stderr=child)  # fmt: skip
    os.close(child)
    os.close(reader)
    # More than a pipe holds: the first part is written once the command reads it, however slow the machine is.
    noise = io.BytesIO()
    Image.effect_noise((600, 600), 100).save(noise, "PNG")
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        pipe.write(noise.getvalue()[:200_000])
        time.sleep(1.5)
        pipe.write(noise.getvalue()[200_000:])
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    assert process.wait(30) == 0
    assert (b"images/s" in seen or b"s/ images" in seen) == (not rows_on_terminal)
    assert (b"photos/0.jpg" in seen) == rows_on_terminal


def write_log(monkeypatch: pytest.MonkeyPatch, names: list[str], format: str, encoding: str = "utf-8") -> bytes:
    """Return what the command writes to standard output about images of these names."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        write = _choose_writer(format, ("female", "male"), faces=False)
        for name in names:
            write(Prediction(name, "male", 0.75, (0.25, 0.75)), "male")
    stream.flush()
    return stream.buffer.getvalue()


# Bytes that are no UTF-8 among them, as the surrogates that Python makes of them.
FILE_NAMES = st.lists(
    st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.replace(b"\0", b"\r"))), max_size=6
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(FILE_NAMES)
@example(["dir/Icon\r", "a\rb.jpg", "\r", "\r\n", '"', "a,\rb", " ", "\udcff\r"])
def test_monitor_reads_any_name_that_predict_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for format in ("csv", "json"):
        path = tmp_path / f"log.{format}"
        path.write_bytes(write_log(monkeypatch, names, format))
        assert list(_read_log(path, ("female", "male"))) == [(name, [0.25, 0.75], None, "") for name in names]


@pytest.mark.parametrize("format", ["table", "json", "csv"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_standard_output_will_do(format: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = write_log(monkeypatch, ["na\u00efve \u5973.jpg", "\ud800.jpg"], format, encoding)
    text = shown.decode(encoding)
    assert text.count("male") >= 2
    assert ("\u5973" in text) == (encoding == "utf-8" and format != "json")
    assert "\\ud800.jpg" in text


def test_a_log_of_earlier_versions_with_cut_names_is_read(tmp_path: Path) -> None:
    """They wrote a carriage return in a name as it was."""
    header, rest = "name,label,prob,prob_female,prob_male,error", ",male,0.75,0.25,0.75,"
    names = ["dir/Icon\r.jpg", "a\rb\r\rc.jpg", "plain.jpg", '"q,\rr.jpg"']
    (tmp_path / "log.csv").write_bytes(
        "".join(f"{line}\n" for line in (header, *(name + rest for name in names))).encode()
    )
    read = [row.name for row in _read_log(tmp_path / "log.csv", ("female", "male"))]
    assert read == [*names[:3], "q,\rr.jpg"]
    for ending in ("\r", "\r\n"):  # other programs end their lines so
        (tmp_path / "log.csv").write_bytes(
            "".join(f"{line}{ending}" for line in (header, "a" + rest, "b" + rest)).encode()
        )
        assert [row.name for row in _read_log(tmp_path / "log.csv", ("female", "male"))] == ["a", "b"]


def test_a_name_is_no_formula_in_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "=cmd|' /C calc'!A0.jpg",
        "+1.jpg",
        "@x.jpg",
        "-x.jpg",
        "\t=1.jpg",
        "\uff1d1.jpg",
        "'=1.jpg",
        "-0.5",
        "-",
        "a=b.jpg",
    ]
    (tmp_path / "log.csv").write_bytes(write_log(monkeypatch, names, "csv"))
    with (tmp_path / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"'{name}" for name in names[:7]] + names[7:]
    assert [row.name for row in _read_log(tmp_path / "log.csv", ("female", "male"))] == names


def test_csv_on_a_terminal_does_not_control_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(io, "TextIOWrapper", Terminal)
    shown = write_log(monkeypatch, ["a\x1b[31m\u202e.jpg"], "csv").decode()
    assert shown.splitlines()[1].startswith(r"a\x1b[31m\u202e.jpg,")
