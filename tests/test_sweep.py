"""A week's work on a fresh clone: a sweep through DVC's queue, read in the terminal and in MLflow's UI."""

import csv
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import open_browser
from checkout import SMALL, Checkout, clone
from mlflow.entities import Run
from playwright.sync_api import Page, expect
from servers import answers, free_port, serving

from gender_classifier.track.runs_view import CURVES

pytestmark = pytest.mark.ui

LRS, BATCH_SIZES = ("0.001", "0.0005", "0.0003"), ("128", "64")  # the README's


def wait_for_queue(checkout: Checkout, seconds: float) -> list[str]:
    """Return the state of each queued experiment, once all are over."""
    deadline = time.monotonic() + seconds
    while True:
        done = checkout.run("dvc", "queue", "status", check=False)  # fails if it meets a state that DVC is writing
        states = re.findall(r"\b(Queued|Running|Success|Failed)\b", done.stdout)
        if not done.returncode and states and not {"Queued", "Running"} & set(states):
            return states
        assert time.monotonic() < deadline, f"{done.stdout}\n{done.stderr}"
        time.sleep(5)  # each look takes DVC a second


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Checkout:
    """A clone without a store in which six experiments have run, two at a time."""
    is_real = pytestconfig.getoption("--screenshots") is not None
    checkout = clone(tmp_path_factory.mktemp("swept"), {} if is_real else {**SMALL, "epochs": 2})
    sweep = ("-S", f"lr={','.join(LRS)}", "-S", f"batch_size={','.join(BATCH_SIZES)}")
    checkout.run("dvc", "exp", "run", "--queue", *sweep)
    queue = ("env", "-u", "OMP_NUM_THREADS", "dvc", "queue", "start", "-j", "2")
    variables = {"PATH": checkout.warm_path(), "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}
    assert checkout.start(*queue, **variables).wait(60) == 0
    states = wait_for_queue(checkout, 1800)
    failed = checkout.run("dvc", "queue", "status").stdout
    assert states == ["Success"] * len(LRS) * len(BATCH_SIZES), failed
    return checkout


def shown(checkout: Checkout) -> dict[str, dict[str, str]]:
    """Return the rows of ``dvc exp show`` that are experiments, by name."""
    rows = csv.DictReader(checkout.run("dvc", "exp", "show", "--csv").stdout.splitlines())
    return {row["Experiment"]: row for row in rows if row["Experiment"] and row["rev"] != "workspace"}


def test_every_experiment_is_one_complete_row(swept: Checkout) -> None:
    runs, rows = swept.runs(), shown(swept)
    names = set(rows) - {"main"}
    baseline = swept.run("git", "rev-parse", "HEAD").stdout.strip()
    assert {run.info.run_name for run in runs} == names
    grid = {(lr, size) for lr in LRS for size in BATCH_SIZES}
    assert len(runs) == len(names) == len(grid)
    assert {(run.data.params["lr"], run.data.params["batch_size"]) for run in runs} == grid
    columns = {frozenset(run.data.metrics) for run in runs}, {frozenset(run.data.params) for run in runs}
    assert [len(one) for one in columns] == [1, 1]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert (run.data.tags["dvc.exp"], run.data.tags["dvc.baseline"]) == (run.info.run_name, baseline)
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(run.data.metrics)
        epochs = list(range(1, int(run.data.params["epochs"]) + 1))
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert [point.step for point in swept.client.get_metric_history(run.info.run_id, key)] == epochs
        accuracy = float(rows[run.info.run_name]["test.accuracy"])
        assert accuracy == pytest.approx(run.data.metrics["test/accuracy"], abs=1e-5)
        for picture in ("curves.png", "val_confusion.png", "test_confusion.png", "model_card.md"):
            assert Path(swept.client.download_artifacts(run.info.run_id, picture)).stat().st_size > 1000
    assert not [
        path for path in (swept.folder / ".dvc" / "tmp").rglob("*") if path.name in ("mlflow.db", "mlartifacts")
    ]


def test_parallel_jobs_share_the_processors(swept: Checkout) -> None:
    threads = [int(run.data.tags["torch.threads"]) for run in swept.runs()]
    assert threads[:2] == [max(1, (os.cpu_count() or 1) // 2)] * 2
    assert max(threads) <= (os.cpu_count() or 1)


def test_every_model_is_a_version_and_one_is_champion(swept: Checkout) -> None:
    versions = swept.client.search_model_versions("name='gender-classifier'")
    assert {version.tags["dvc.exp"] for version in versions} == {run.info.run_name for run in swept.runs()}
    aliases = swept.client.get_registered_model("gender-classifier").aliases
    assert int(aliases["challenger"]) == len(versions) == len(swept.runs())
    assert all("promotion" in version.tags for version in versions)


@pytest.fixture(scope="module")
def pictures(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pytestconfig.getoption("--screenshots")
    return Path(folder).resolve() if folder else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def page(swept: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on the address that ``gender-classifier ui`` prints, as a newcomer follows it."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gender-classifier")), "ui", "--port", str(port)]
    with (
        serving(command, swept.folder, lambda: "MLflow UI: " in (swept.folder / "server.log").read_text()),
        open_browser(tmp_path_factory.mktemp("profile"), {"width": 1500, "height": 560}) as browser,
    ):
        assert answers(f"http://127.0.0.1:{port}/health")
        printed = re.findall(r"MLflow UI: (\S+)", (swept.folder / "server.log").read_text())
        page = browser.new_page()
        page.goto(printed[-1])
        page.wait_for_selector("text=Run Name")
        if page.get_by_role("button", name="Close").count():  # MLflow's assistant
            page.get_by_role("button", name="Close").first.click()
        yield page


def two_runs(swept: Checkout) -> list[Run]:
    """Return the two runs of the highest learning rate."""
    return [run for run in swept.runs() if run.data.params["lr"] == LRS[0]]


def test_the_table_of_runs_compares(swept: Checkout, page: Page, pictures: Path) -> None:
    names = page.locator(".ag-pinned-left-cols-container [role=row]")
    expect(names).to_have_count(len(swept.runs()))
    page.wait_for_timeout(1000)
    page.screenshot(path=pictures / "mlflow-runs.png")
    expect(page.get_by_role("link", name="Model registry")).to_be_visible()
    header = page.locator(".ag-header-container").inner_text().split("\n")
    for column in ("test/accuracy", "val/kept_accuracy", "lr", "batch_size", "epochs"):
        assert column in header
    for run in swept.runs():
        row = page.locator(f"[row-id='{run.info.run_id}']")
        assert run.info.run_name in row.first.inner_text()
        cells = {cell.get_attribute("col-id") or "": cell.inner_text() for cell in row.nth(1).locator("[col-id]").all()}
        for key in ("test/accuracy", "val/kept_accuracy"):
            (found,) = [text for column, text in cells.items() if column.endswith(key) or f"`{key}`" in column]
            assert float(found) == pytest.approx(run.data.metrics[key], abs=5e-4)
        for key in ("lr", "batch_size", "epochs"):
            assert run.data.params[key] in [text for column, text in cells.items() if key in column]


def test_the_charts_begin_with_the_curves_of_all_runs(swept: Checkout, page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 1500, "height": 1100})
    page.goto(f"{page.url}&compareRunsMode=CHART")
    cards = page.locator("[data-testid='experiment-view-compare-runs-card']")
    for number, key in enumerate(CURVES):
        expect(cards.nth(number)).to_contain_text(key)
        for run in swept.runs():
            expect(cards.nth(number)).to_contain_text(run.info.run_name or "")
    page.wait_for_timeout(2000)
    page.screenshot(path=pictures / "mlflow-curves.png")


def test_two_runs_show_both_confusion_matrices(swept: Checkout, page: Page, pictures: Path) -> None:
    runs = two_runs(swept)
    page.set_viewport_size({"width": 1500, "height": 760})
    address = page.url.split("#", maxsplit=1)[0]
    ids = ",".join(f'"{run.info.run_id}"' for run in runs)
    page.goto(f'{address}#/compare-runs?runs=[{ids}]&experiments=["{runs[0].info.experiment_id}"]')
    page.get_by_text("test_confusion.png", exact=True).click()
    page.wait_for_timeout(3000)
    images = [image for image in page.locator("img").all() if image.evaluate("image => image.naturalWidth > 300")]
    seen = {image.get_attribute("src") for image in images if image.is_visible()}
    assert len(seen) == 2, seen
    images[0].scroll_into_view_if_needed()
    page.screenshot(path=pictures / "mlflow-confusion.png")


def test_the_models_page_shows_versions_with_aliases(swept: Checkout, page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 1300, "height": 1000})
    page.goto(f"{page.url.split('#', maxsplit=1)[0]}#/models/gender-classifier")
    last = len(swept.runs())
    page.wait_for_selector(f"text=Version {last}")
    page.evaluate("document.body.style.zoom = 0.72")  # all versions in one picture
    page.wait_for_timeout(1000)
    page.screenshot(path=pictures / "mlflow-model.png")
    for version in range(1, last + 1):
        expect(page.get_by_role("link", name=f"Version {version}", exact=True)).to_be_visible()
    newest = page.get_by_role("row").filter(has_text=f"Version {last}")
    expect(newest).to_contain_text("challenger")
    expect(newest).to_contain_text("promot")


def test_a_restored_experiment_gets_its_name_and_no_second_row(swept: Checkout) -> None:
    runs = swept.runs()
    run = next(one for one in runs if (one.data.params["lr"], one.data.params["batch_size"]) == ("0.0005", "64"))
    done = swept.run("dvc", "exp", "run", "-n", "once-more", "-S", "lr=0.0005", "-S", "batch_size=64")
    assert "Running stage 'train'" not in done.stdout
    assert len(swept.runs()) == len(runs)
    assert "1 experiment names added" in swept.run("gender-classifier", "sync").stdout
    assert "0 experiment names added" in swept.run("gender-classifier", "sync").stdout
    found = swept.client.search_runs([run.info.experiment_id], "tags.`dvc.exp` LIKE '%once-more%'")
    assert [one.info.run_id for one in found] == [run.info.run_id]
    assert found[0].info.run_name == f"{run.info.run_name}, once-more"
    assert len(swept.runs()) == len(runs)
