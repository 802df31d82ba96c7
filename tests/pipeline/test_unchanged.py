"""A stage whose params or data change under it fails, since DVC would record what it did not use."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from gender_classifier.common.paths import Layout
from gender_classifier.errors import DataError, ParamsError
from gender_classifier.pipeline.params import load_params
from gender_classifier.pipeline.unchanged import expect_unchanged


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A checkout whose stage `train` depends on a small file and on a large one."""
    stage = {"params": ["epochs", "train", "preprocess.image_size"], "deps": ["data/index.csv", "data/images.npy"]}
    stage["deps"].append("src/model.py")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "index.csv").write_text("row\n0\n")
    (tmp_path / "data" / "images.npy").write_bytes(bytes(2 << 20))
    return Layout(tmp_path)


def stand_still(change: Callable[[Path], object], layout: Layout, stage: str = "train") -> None:
    with expect_unchanged(stage, layout, load_params(layout.params_path)):
        change(layout.root)


def set_param(*keys: str, value: object) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        section = params
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("epochs",), 3, "`epochs` was 20 when this stage began and is 3 now"),
        (("train", "augment", "grey"), 0.5, "`train.augment.grey` was 0.1"),
        (("preprocess", "image_size"), 96, "`preprocess.image_size` was 64"),
    ],
)
def test_a_changed_param_of_the_stage_is_named(layout: Layout, keys: tuple[str, ...], value: object, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        stand_still(set_param(*keys, value=value), layout)


@pytest.mark.parametrize(
    "change",
    [
        set_param("lr", value=0.5),
        set_param("evaluate", "ece_bins", value=10),
        set_param("preprocess", "val_fraction", value=0.3),
        lambda root: (root / "data" / "other.csv").write_text("new"),
        lambda root: (root / "data" / "index.csv").write_text("row\n0\n"),
        lambda root: os.utime(root / "data" / "index.csv", (0, 0)),
    ],
    ids=["param of others", "section of others", "key of others", "file of others", "same content", "new time"],
)
def test_what_the_stage_does_not_use_may_change(layout: Layout, change: Callable[[Path], object]) -> None:
    stand_still(change, layout)


def replace(path: Path) -> None:
    """Put an equally large file in the place of ``path``, as a checkout does."""
    new = path.with_suffix(".new")
    new.write_bytes(bytes(path.stat().st_size))
    new.replace(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("index.csv", lambda root: (root / "data" / "index.csv").write_text("row\n1\n")),
        ("index.csv", lambda root: (root / "data" / "index.csv").unlink()),
        ("images.npy", lambda root: replace(root / "data" / "images.npy")),
        ("images.npy", lambda root: (root / "data" / "images.npy").unlink()),
    ],
    ids=["other content", "removed", "large and replaced", "large and removed"],
)
def test_changed_data_are_named(layout: Layout, name: str, change: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match=f"{name}: changed by another process while this stage used it"):
        stand_still(change, layout)


@pytest.mark.parametrize(("before", "after"), [({}, {"a": "a.zip"}), ({"a": "a.zip"}, {})], ids=["added", "removed"])
def test_an_entry_that_comes_or_goes_is_a_change(layout: Layout, before: dict[str, str], after: dict[str, str]) -> None:
    pipeline = {"stages": {"train": {"params": ["evaluate"], "deps": []}}}
    (layout.root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    set_param("evaluate", "extra", value=before)(layout.root)
    with pytest.raises(ParamsError, match="absent"):
        stand_still(set_param("evaluate", "extra", value=after), layout)


def test_unreadable_params_are_said_to_be_so(layout: Layout) -> None:
    with pytest.raises(ParamsError, match="not valid YAML"):
        stand_still(lambda root: (root / "params.yaml").write_text("epochs: ["), layout)


def test_an_error_of_the_stage_comes_first(layout: Layout) -> None:
    def fail(root: Path) -> None:
        set_param("epochs", value=3)(root)
        raise DataError("the stage's own")

    with pytest.raises(DataError, match="the stage's own"):
        stand_still(fail, layout)


def test_a_stage_that_the_pipeline_lacks_has_nothing_to_compare(layout: Layout) -> None:
    stand_still(set_param("epochs", value=3), layout, "another")
    (layout.root / "dvc.yaml").unlink()
    stand_still(set_param("epochs", value=4), layout)


@pytest.mark.parametrize(
    "pipeline",
    ["", "stages:", "stages: {train: }", "stages: {train: [a]}", "[", "stages: {train: {deps: , params: [{}]}}"],
)
def test_a_pipeline_that_dvc_would_not_run_has_nothing_to_compare(layout: Layout, pipeline: str) -> None:
    (layout.root / "dvc.yaml").write_text(pipeline)
    stand_still(set_param("epochs", value=3), layout)


def test_a_stage_ends_in_one_line(layout: Layout) -> None:
    script = layout.root / "stage.py"
    script.write_text(
        "from gender_classifier.pipeline.stage import run_stage\n"
        "def main(layout, params):\n"
        "    text = layout.params_path.read_text(encoding='utf-8')\n"
        "    layout.params_path.write_text(text.replace('epochs: 20', 'epochs: 3'), encoding='utf-8')\n"
        "run_stage('train', main)\n",
    )
    command = [sys.executable, str(script)]
    ended = subprocess.run(command, cwd=layout.root, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("train: error: ")
    assert ended.stderr.count("\n") == 1
    assert "`epochs` was 20 when this stage began and is 3 now" in ended.stderr
