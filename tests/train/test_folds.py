"""Folds of train: groups whole, the same recipe on the others, and nothing trained twice after a stop."""

import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_distributed import write_arrays
from test_training import PARAMS, SPEC
from tqdm import tqdm

from gender_classifier.common.paths import Layout
from gender_classifier.data.dataset import PackedSplit, open_split, read_index, write_integers
from gender_classifier.errors import DataError, ParamsError
from gender_classifier.metrics.calibration import fit_temperature
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.network import build_model
from gender_classifier.train import folds as folds_module
from gender_classifier.train.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from gender_classifier.train.distributed import World
from gender_classifier.train.folds import HeldOut, assign_folds, open_folds
from gender_classifier.train.params import TrainParams
from gender_classifier.train.session import Session, open_session
from gender_classifier.train.trainer import Trainer

FOLDED = replace(PARAMS, label_folds=2, epochs=2)
GROUPS = [row // 2 for row in range(40)]  # pairs, of two labels each


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    write_arrays(tmp_path, {"train": 40, "val": 12})
    write_integers(Layout(tmp_path).groups_path, GROUPS)
    return Layout(tmp_path)


def open_small(layout: Layout, params: TrainParams = FOLDED) -> Session:
    return open_session(layout, params, [], layout.root, World(), None)


def hold_out(layout: Layout, params: TrainParams = FOLDED) -> HeldOut:
    found = open_folds(layout, open_small(layout, params)).predict("run")
    assert found is not None
    return found


@pytest.mark.parametrize("count", [2, 3, 7])
def test_groups_stay_whole_and_folds_are_alike(count: int) -> None:
    rng = np.random.default_rng(count)
    groups = np.sort(rng.integers(0, 600, 1000))  # of one to six images
    labels = rng.integers(0, 3, 600)[groups]
    folds = assign_folds(labels, groups, count, seed=0)
    assert set(folds) == set(range(1, count + 1))
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    for label in range(3):
        sizes = np.bincount(folds[labels == label], minlength=count + 1)[1:]
        assert sizes.max() - sizes.min() <= 1  # small groups come last, and level what the large ones left
    np.testing.assert_array_equal(folds, assign_folds(labels, groups, count, seed=0))
    assert (folds != assign_folds(labels, groups, count, seed=1)).any()


def test_a_large_group_does_not_empty_the_other_folds() -> None:
    groups = np.array([0] * 50 + list(range(1, 51)))
    folds = assign_folds(np.zeros(100, np.int64), groups, 3, seed=0)
    assert sorted(np.bincount(folds)[1:]) == [25, 25, 50]


@pytest.mark.parametrize(
    ("groups", "count", "message"),
    [
        (GROUPS, 21, "`train.label_folds` is 21, more than train has groups; lower it or set it to 0"),
        (
            [row % 2 and row for row in range(40)],
            2,
            r"is 2, and without fold \d train has no image of female; lower it",
        ),
    ],
)
def test_too_few_groups_are_refused_before_training(
    layout: Layout, groups: list[int], count: int, message: str
) -> None:
    write_integers(layout.groups_path, groups)
    with pytest.raises(ParamsError, match=message):
        open_folds(layout, open_small(layout, replace(FOLDED, label_folds=count)))


def test_groups_of_other_images_are_refused(layout: Layout) -> None:
    write_integers(layout.groups_path, GROUPS[:-1])
    with pytest.raises(DataError, match=r"train_groups.npy: holds int64 \(39,\) for 40 images; preprocess again"):
        open_folds(layout, open_small(layout))


def test_without_folds_nothing_is_trained_or_read(layout: Layout) -> None:
    layout.groups_path.unlink()
    assert open_folds(layout, open_small(layout, replace(FOLDED, label_folds=0))).predict("run") is None


def test_a_fold_is_predicted_by_the_recipe_trained_on_copies_of_the_others(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = hold_out(layout)
    assert "`train.label_folds` is 2: this training, then 2 more on 50 % of its images each, 1.0 times" in caplog.text
    assert found.members == read_index(layout.index_path("train"))
    train, val = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "val"))
    folds = assign_folds(np.asarray(train.labels), np.array(GROUPS), 2, FOLDED.seed)
    np.testing.assert_array_equal(found.folds, folds)
    kept, left_out = folds != 2, folds == 2
    torch.manual_seed(FOLDED.seed)
    spec = replace(SPEC, channel_mean=(0.4,) * 3, channel_std=(0.2,) * 3, tta_margin=FOLDED.tta_margin)
    others = PackedSplit(np.array(train.images[kept]), np.array(train.labels[kept]))
    trainer = Trainer(build_model("linear", 2, 64), spec, others, val, FOLDED)
    list(trainer.epochs())
    assert trainer.best is not None
    trainer.averaged.load_state_dict(trainer.best.state)
    logits = compute_logits(trainer.averaged, spec, train.images[left_out]).astype(np.float64)
    np.testing.assert_array_equal(found.logits[left_out], logits / fit_temperature(trainer.best.val_logits, val.labels))


def test_a_stopped_fold_goes_on_and_finished_ones_are_kept(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bars: list[Any] = []

    def show_silent(**options: Any) -> Any:
        bars.append(tqdm(file=io.StringIO(), **options))
        return bars[-1]

    monkeypatch.setattr(folds_module, "show_progress", lambda name, **options: show_silent(desc=name, **options))
    undisturbed = hold_out(layout)
    for path in layout.checkpoints_dir.glob("*.safetensors"):
        path.unlink()
    saved: list[Path] = []

    def save_and_stop(path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)
        saved.append(path)
        if len(saved) == 4:  # two epochs and the predictions of the first fold, one epoch of the second
            raise KeyboardInterrupt

    monkeypatch.setattr(folds_module, "save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        hold_out(layout)
    first, second = saved[0], saved[3]
    kept, stopped = load_checkpoint(first), load_checkpoint(second)
    assert kept is not None
    assert stopped is not None
    assert list(kept.tensors) == ["held_out"]  # a network has megabytes
    assert kept.facts["run_id"] == stopped.facts["run_id"] == "run"  # evaluate removes them with the run's
    assert len(stopped.facts["records"]) == 1
    with caplog.at_level(logging.INFO):
        again = hold_out(layout)
    assert "label folds: 1 of 2 trainings left" in caplog.text
    passes = 2 * (20 + 12) + 20  # images of a fold: two epochs of half of train and of val, and the fold itself
    assert [(bar.initial, bar.n, bar.total) for bar in bars[::2]] == [
        (0, 2 * passes, 2 * passes),
        (passes + 20 + 12, 2 * passes, 2 * passes),
    ]
    np.testing.assert_array_equal(again.logits, undisturbed.logits)
    assert first not in saved[4:]
    assert saved.count(second) == 3  # its second epoch and its predictions


def test_the_bar_counts_what_other_processes_predict(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_small(layout, replace(FOLDED, epochs=1))
    list(session.trainer.epochs())
    session.world = World(rank=0, size=2)
    monkeypatch.setattr(folds_module, "gather_rows", lambda rows, count, *_: np.resize(rows, (count, rows.shape[1])))
    counted: list[int] = []
    folds_module._predict(session.trainer, session, np.arange(9), counted.append)
    assert sum(counted) == 9


def test_other_groups_use_no_fold_of_before(layout: Layout) -> None:
    short = replace(FOLDED, epochs=1)
    before = hold_out(layout, short)
    write_integers(layout.groups_path, list(range(40)))
    after = hold_out(layout, short)
    assert (before.folds != after.folds).any()
    assert len(list(layout.checkpoints_dir.glob("*.safetensors"))) == 4


def test_the_main_training_has_one_checkpoint_whatever_the_folds(layout: Layout) -> None:
    keys = {open_small(layout, replace(FOLDED, label_folds=count)).key for count in (0, 2, 3)}
    assert len(keys) == 1
