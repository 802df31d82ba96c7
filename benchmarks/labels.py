"""Wrong labels: how many of the ones that this script makes are found, and what correcting them regains.

    dvc repro preprocess                                   (set `source` to the data to measure on)
    python benchmarks/labels.py --flip 0.04 --epochs 6                  9 minutes on 2 busy cores with 10,000 images
    python benchmarks/labels.py --flip 0.08 --epochs 10 --seeds 3 --correct     also what corrections regain

Gives a share of the images of train and val, drawn by chance, another label; test stays as it is. The model and the
folds of `train.label_folds` then train by `params.yaml`, and the suspects are ranked as `evaluate` ranks them, without
those of test. `--correct` restores the wrong labels among the suspects, as a person who looks at each of them would,
and trains on the original, the wrong and the corrected labels.

Checkpoints and probabilities are kept in `--folder`, and the same command goes on after an interruption. Where
`cleanlab` is installed, its suspects (`find_label_issues` with its defaults, by self-confidence) of the same
probabilities are counted too.
"""

import argparse
import importlib
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.files import write_json
from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory
from gender_classifier.data.dataset import open_split, write_integers
from gender_classifier.evaluate.mistakes import rank_label_issues
from gender_classifier.metrics.calibration import fit_temperature, softmax
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import build_network
from gender_classifier.pipeline.params import load_params
from gender_classifier.train.distributed import World
from gender_classifier.train.folds import open_folds
from gender_classifier.train.params import TrainParams
from gender_classifier.train.session import Session, open_session

LOOK_AT = 1000  # suspects, likeliest first
SPLITS = ("train", "val")

Labels = dict[str, NDArray[np.int64]]
Rank = Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.int64]]


class Untracked:
    """A run that is told everything and keeps nothing."""

    run_id, experiment = "benchmark", ""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None: ...
    def log_artifact(self, path: Path, folder: str | None = None) -> None: ...
    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, object]) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flip", type=float, default=0.04, help="share of wrong labels (default: 0.04)")
    parser.add_argument("--folds", type=int, default=3, help="as `train.label_folds` (default: 3)")
    parser.add_argument("--epochs", type=int, help="override `epochs` of params.yaml")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions, each with other wrong labels (default: 1)")
    parser.add_argument("--correct", action="store_true", help="also train on the original and the corrected labels")
    parser.add_argument("--folder", type=Path, default=Path("labels"), help="for what is kept (default: labels)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()  # as the stage does
    layout = Layout(Path.cwd())
    params = load_params(layout.params_path).train
    params = replace(params, epochs=options.epochs or params.epochs, label_folds=options.folds)
    rows = []
    for seed in range(options.seeds):
        folder = options.folder / f"flip-{options.flip:g}-epochs-{params.epochs}-folds-{options.folds}-seed-{seed}"
        rows.append(measure(layout, replace(params, seed=seed), options.flip, folder, correct=options.correct))
        print(json.dumps(rows[-1]), flush=True)
        write_json(folder / "result.json", rows[-1])


def measure(layout: Layout, params: TrainParams, share: float, folder: Path, *, correct: bool) -> dict[str, object]:
    """Make wrong labels, look for them, and return the counts, and with ``correct`` the accuracies on test."""
    truth = {split: np.load(layout.labels_path(split)) for split in SPLITS}
    labels = flip(truth, share, params.seed, classes=int(truth["train"].max()) + 1)
    began = time.perf_counter()
    session = train(layout, folder / "flipped", labels, params)
    seconds, began = time.perf_counter() - began, time.perf_counter()
    folds = open_folds(Layout((folder / "flipped").resolve()), session)
    held_out = folds.predict("benchmark")
    assert held_out is not None
    probs = {"train": softmax(held_out.logits), "val": predict_val(session)}
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        np.savez(folder / f"{split}.npz", probs=probs[split], labels=labels[split], truth=truth[split])
    suspects = rank(probs, labels, rank_label_issues)
    found: dict[str, object] = {
        "seed": params.seed,
        "wrong": sum(int((labels[split] != truth[split]).sum()) for split in SPLITS),
        **count(suspects, labels, truth, "suspects"),
        "seconds": seconds,
        "seconds_folds": time.perf_counter() - began,
    }
    if importlib.util.find_spec("cleanlab"):
        found |= count(rank(probs, labels, rank_with_cleanlab), labels, truth, "cleanlab")
    if correct:
        corrected = {split: labels[split].copy() for split in SPLITS}
        for split, row in suspects:
            corrected[split][row] = truth[split][row]
        found["accuracy_flipped"] = score(layout, session)
        found["accuracy_original"] = score(layout, train(layout, folder / "original", truth, params))
        found["accuracy_corrected"] = score(layout, train(layout, folder / "corrected", corrected, params))
    return found


def flip(truth: Labels, share: float, seed: int, classes: int) -> Labels:
    """Return labels of which a share, of all splits together, is another class each, drawn by chance."""
    rng = np.random.default_rng(seed)
    joined = np.concatenate(list(truth.values()))
    rows = rng.choice(len(joined), round(share * len(joined)), replace=False)
    joined[rows] = (joined[rows] + rng.integers(1, classes, len(rows))) % classes
    return dict(zip(truth, np.split(joined, [len(truth["train"])]), strict=True))


def train(layout: Layout, folder: Path, labels: Labels, params: TrainParams) -> Session:
    """Train as the stage does on the arrays of ``layout`` with other labels, in a project made for it at ``folder``."""
    other = Layout(folder.resolve())
    other.processed_dir.mkdir(parents=True, exist_ok=True)
    for path in layout.processed_dir.iterdir():
        if not (other.processed_dir / path.name).exists() and not path.name.endswith("_labels.npy"):
            (other.processed_dir / path.name).symlink_to(path.resolve())
    for split, values in labels.items():
        write_integers(other.labels_path(split), values.tolist())
    session = open_session(other, params, [], layout.root, World(), None)
    with session.hold():
        session.fit(Untracked())
    return session


def predict_val(session: Session) -> NDArray[np.float64]:
    """Return the calibrated probabilities of val by the session's model."""
    best = session.trainer.best
    assert best is not None
    return softmax(best.val_logits / fit_temperature(best.val_logits, session.val.labels))


def rank(probs: Mapping[str, NDArray[np.float64]], labels: Labels, find: Rank) -> list[tuple[str, int]]:
    """Return split and row of the suspects, the likeliest first."""
    found = [
        (probs[split][row, labels[split][row]], split, int(row))
        for split in SPLITS
        for row in find(probs[split], labels[split])
    ]
    return [(split, row) for _, split, row in sorted(found)]


def rank_with_cleanlab(probs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that cleanlab's defaults suspect."""
    find = importlib.import_module("cleanlab.filter").find_label_issues
    rows: NDArray[np.int64] = find(labels, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    return rows


def count(suspects: list[tuple[str, int]], labels: Labels, truth: Labels, name: str) -> dict[str, object]:
    """Return the number of suspects, and of wrong labels among all of them and among the first."""
    wrong = [bool(labels[split][row] != truth[split][row]) for split, row in suspects]
    return {name: len(wrong), f"wrong_in_{name}": sum(wrong), f"wrong_in_first_{name}": sum(wrong[:LOOK_AT])}


def score(layout: Layout, session: Session) -> float:
    """Return the accuracy on test."""
    test, best = open_split(layout.images_path("test"), layout.labels_path("test")), session.trainer.best
    assert best is not None
    model = build_network(session.trainer.spec)
    model.load_state_dict(best.state)
    logits = compute_logits(model, session.trainer.spec, test.images)
    return float((logits.argmax(axis=1) == test.labels).mean())


if __name__ == "__main__":
    main()
