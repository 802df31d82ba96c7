"""DVC's experiments, in the workspace and in a folder that vanishes, with good params and bad ones."""

import csv
import re
from pathlib import Path
from urllib.request import url2pathname

import pytest
from checkout import Checkout, copy_checkout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def experiments(repro: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The clone after two experiments: one in the workspace, one in a folder that vanishes."""
    checkout = copy_checkout(repro, tmp_path_factory.mktemp("experiments") / "copy")
    settings = ("-S", "epochs=2", "-S", "evaluate.robustness_images=0")
    checkout.run("dvc", "exp", "run", "-n", "two-epochs", *settings, "-S", "lr=1e-4")
    checkout.run("git", "stash", "-q")
    checkout.run("dvc", "checkout", "-q")
    checkout.run("dvc", "exp", "run", "--temp", "-n", "from-temp", *settings, "-S", "seed=5")
    return checkout


def test_experiments_are_rows_that_compare(experiments: Checkout) -> None:
    rows = {run.info.run_name: run for run in experiments.runs()}
    assert {"two-epochs", "from-temp"} <= set(rows)
    baseline = experiments.run("git", "rev-parse", "HEAD").stdout.strip()
    for name in ("two-epochs", "from-temp"):
        run = rows[name]
        assert run.info.status == "FINISHED"
        assert (run.data.tags["dvc.exp"], run.data.tags["dvc.baseline"]) == (name, baseline)
        assert run.data.params["epochs"] == "2"
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            history = experiments.client.get_metric_history(run.info.run_id, key)
            assert [point.step for point in history] == [1, 2]
        assert "test/accuracy" in run.data.metrics
        for picture in ("test_confusion.png", "curves.png"):
            local = experiments.client.download_artifacts(run.info.run_id, picture)
            assert Path(local).read_bytes().startswith(b"\x89PNG")
    assert float(rows["two-epochs"].data.params["lr"]) == 1e-4


def test_artifacts_of_a_temp_run_lie_in_the_main_checkout(experiments: Checkout) -> None:
    run = next(run for run in experiments.runs() if run.info.run_name == "from-temp")
    assert (
        run.info.artifact_uri
        == (experiments.folder / "mlartifacts/gender-classifier" / run.info.run_id / "artifacts").as_uri()
    )
    found = {path.parent for name in ("mlflow.db", "mlartifacts") for path in experiments.repository.rglob(name)}
    assert found == {experiments.folder}


def test_going_back_restores_from_the_run_cache_without_training(experiments: Checkout) -> None:
    before = len(experiments.runs())
    done = experiments.run("dvc", "repro")
    assert "stages/train.py" not in done.stdout.replace("Stage 'train' is cached", "")
    assert len(experiments.runs()) == before


def test_dvcs_own_commands_read_well(experiments: Checkout) -> None:
    assert "accuracy" in experiments.run("dvc", "metrics", "diff", "HEAD", "two-epochs").stdout
    assert re.search(r"epochs\s+1\s+2", experiments.run("dvc", "params", "diff", "HEAD", "two-epochs").stdout)
    page = experiments.run("dvc", "plots", "diff", "HEAD", "two-epochs", "--out", "plots_page").stdout.strip()
    html = Path(url2pathname(page.removeprefix("file://"))).read_text()
    for title in ("Loss, train", "Accuracy, train", "true positive rate", "predicted"):
        assert title in html
    (experiments.folder / "plots_page").exists()


def test_shown_experiments_have_the_metrics(experiments: Checkout) -> None:
    shown = experiments.run("dvc", "exp", "show", "--csv").stdout
    header = next(csv.reader(shown.splitlines()))
    assert {"test.accuracy", "val.kept_accuracy", "epochs", "lr"} <= set(header)


@pytest.mark.parametrize(
    ("settings", "stage", "message"),
    [
        (["epochs=0"], "train", "`epochs` is int 0, out of range; it must be at least 1"),
        (["source=nowhere.zip"], "ingest", "no such folder or file; choose sample, kaggle, or a path"),
        (["source=README.md"], "ingest", "is neither a folder"),
        (["verify.max_rejected=0"], "verify", "images rejected"),
        (["train.device=cuda:7"], "train", "`train.device` is 'cuda:7', which this machine cannot use"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(
    experiments: Checkout, settings: list[str], stage: str, message: str
) -> None:
    checkout = experiments
    done = checkout.run("dvc", "exp", "run", *(part for one in settings for part in ("-S", one)), check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{stage}: error: ")]
    assert len(lines) == 1
    runs = len(checkout.runs())
    (way_back,) = re.findall("`(git checkout [^`]*)`", lines[0])
    checkout.run("sh", "-c", way_back)  # what the stage would have replaced is still in the cache
    assert checkout.run("git", "status", "--short", "--untracked-files=no").stdout == ""
    assert "up to date" in checkout.run("dvc", "repro").stdout
    assert len(checkout.runs()) == runs
    assert message in lines[0]
    assert "Traceback" not in done.stderr


def test_a_failed_experiment_in_a_copy_leaves_nothing_to_bring_back(experiments: Checkout) -> None:
    done = experiments.run("dvc", "exp", "run", "--temp", "-S", "epochs=0", check=False)
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("train: error: "))
    assert line.endswith("it must be at least 1 and at most 100000")
    assert experiments.run("git", "status", "--short", "--untracked-files=no").stdout == ""
