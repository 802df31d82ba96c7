"""Test accuracy of `params.yaml` over several seeds, and an ablation of its ingredients.

    dvc repro preprocess                                 (set `source` to the data to measure on)
    python benchmarks/accuracy.py --seeds 3              4 minutes per training on 2 cores with 18,000 images
    python benchmarks/accuracy.py --seeds 1 --ablate     one training more per ingredient, each without it

As in the pipeline, the epoch is chosen on val and the test images are scored once.
"""

import argparse
import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory
from gender_classifier.data.dataset import open_split, read_info
from gender_classifier.evaluate.measure import measure_tta
from gender_classifier.evaluate.robustness import measure_robustness, summarize
from gender_classifier.metrics.corruptions import choose_images
from gender_classifier.metrics.scores import evaluate
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import build_network
from gender_classifier.model.weights import load_weights
from gender_classifier.pipeline.params import load_params
from gender_classifier.train.params import AugmentParams, TrainParams
from gender_classifier.train.report import calibrate
from gender_classifier.train.session import build_initial
from gender_classifier.train.trainer import Trainer

WITHOUT: dict[str, dict[str, Any]] = {
    "EMA": {"ema_epochs": 0.0},
    "mixup": {"mixup": 0.0},
    "flip": {"flip": 0.0},
    "rotation, scale, shift": {"rotate": 0.0, "scale": 0.0, "translate": 0.0, "translate_height": 0.0},
    "brightness, contrast": {"brightness": 0.0, "contrast": 0.0},
    "grey, blur, JPEG": {"grey": 0.0, "blur": 0.0, "jpeg": 0.0},
    "schedule": {"schedule": "constant"},
    "weight decay": {"weight_decay": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings per recipe (default: 3)")
    parser.add_argument("--ablate", action="store_true", help="also train without each ingredient")
    parser.add_argument("--epochs", type=int, help="override `epochs` of params.yaml")
    parser.add_argument("--json", type=Path, help="write the figures to this file after each recipe")
    options = parser.parse_args()
    keep_freed_memory()  # as the stage does
    layout = Layout(Path.cwd())
    params = load_params(layout.params_path).train
    params = replace(params, epochs=options.epochs or params.epochs)
    recipes: dict[str, dict[str, Any]] = {"all": {}}
    if options.ablate:
        recipes |= {f"without {name}": change for name, change in WITHOUT.items()}
    rows = []
    for name, change in recipes.items():
        results = [
            train_once(layout, change_params(params, change | {"seed": seed}), name) for seed in range(options.seeds)
        ]
        row = {"recipe": name, "seeds": len(results)}
        for key in results[0]:
            values = [result[key] for result in results]
            row |= {key: float(np.mean(values)), f"{key}_deviation": float(np.std(values, ddof=len(values) > 1))}
        rows.append(row)
        print(
            f"{name:32} test {row['accuracy']:.4f} ± {row['accuracy_deviation']:.4f}  "
            f"without test-time augmentation {row['accuracy_without_tta']:.4f} (share {row['tta_share']:.3f})  "
            f"corrupted {row['robust_accuracy']:.4f}  ECE {row['ece']:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


def change_params(params: TrainParams, change: dict[str, Any]) -> TrainParams:
    """Return ``params`` with keys replaced, including keys of ``augment``."""
    inner = {field.name for field in fields(AugmentParams)} & set(change)
    augment = replace(params.augment, **{key: change[key] for key in inner})
    return replace(params, augment=augment, **{key: value for key, value in change.items() if key not in inner})


def train_once(layout: Layout, params: TrainParams, name: str) -> dict[str, float]:
    """Train and evaluate as the stages do, but write no files and track nothing."""
    info = read_info(layout.dataset_path)
    train, val, test = (
        open_split(layout.images_path(split), layout.labels_path(split)) for split in ("train", "val", "test")
    )
    model, spec = build_initial(params, info, load_weights(params.weights, layout.root, params.network))
    trainer = Trainer(model, spec, train, val, params)
    began = time.perf_counter()
    for _ in tqdm(
        trainer.epochs(), total=params.epochs, desc=f"{name}, seed {params.seed}", unit="epoch", disable=None
    ):
        pass
    seconds = time.perf_counter() - began
    assert trainer.best is not None
    model = build_network(spec)
    model.load_state_dict(trainer.best.state)
    spec = calibrate(model, spec, val, trainer.best.val_logits, params)
    logits = compute_logits(model, spec, test.images)
    report = evaluate(logits / spec.temperature, test.labels, classes=info.classes)
    once = compute_logits(model, replace(spec, tta_margin=0.0), test.images)
    chosen = choose_images(test.labels, 1000)
    rows = list(
        measure_robustness(
            lambda pixels: compute_logits(model, spec, pixels),
            np.asarray(test.images[chosen]),
            test.labels[chosen],
            logits[chosen],
        )
    )
    print(f"{name}, seed {params.seed}: {report.metrics['accuracy']:.4f} in {seconds:.0f} s", flush=True)
    kept = {key: report.metrics[key] for key in ("accuracy", "loss", "ece")}
    kept |= measure_tta(logits, once, test.labels)
    return kept | {
        "robust_accuracy": summarize(rows)["robust_accuracy"],
        "best_epoch": trainer.best.record.epoch,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
