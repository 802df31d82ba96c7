"""Our training, from a folder of images, on whole epochs of as many images as fit the budget.

Decodes as `preprocess` does, then trains as `train` does, by params.yaml and the changes given. The stages `ingest` and
`verify`, MLflow and DVC are left out: the others have nothing of the kind. The number of epochs is rounded up, and each
takes a random part of the images, so that the schedule ends with the budget.

    python ours.py train IMAGES OUT DEADLINE [KEY=VALUE ...]
    python ours.py export OUT
"""

import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from gender_classifier.data.dataset import DatasetInfo, PackedSplit, measure_channels, sum_channels  # noqa: E402
from gender_classifier.data.images import to_array  # noqa: E402

SIZE, CLASSES = 64, ("female", "male")
_PROBE, _PLANNED = 5.0, 0.97
_TRIAL = 4  # batches of an epoch that measures the speed


def read_split(images: Path, name: str, pool: ProcessPoolExecutor) -> tuple[PackedSplit, NDArray[np.int64]]:
    """Decode the images of a split on all cores; return them, and the sums of their channels."""
    folders = [sorted((images / name / label).iterdir()) for label in CLASSES]
    labels = np.repeat(np.arange(len(CLASSES)), [len(paths) for paths in folders])
    pixels, sums = np.empty((len(labels), SIZE, SIZE, 3), np.uint8), np.zeros((3, 3), np.int64)
    decoded = pool.map(_decode, [path for paths in folders for path in paths], chunksize=128)
    for row, (image, channels) in enumerate(decoded):
        pixels[row], sums = image, sums + channels
    return PackedSplit(pixels, labels), sums


def train(images: Path, out: Path, deadline: float, changes: dict[str, Any]) -> None:
    """Train until the deadline, s since 1970, and write the best epoch's model."""
    with ProcessPoolExecutor() as pool:  # started before torch is imported: the workers do without it
        (val, _), (data, sums) = (read_split(images, name, pool) for name in ("val", "train"))
    info = DatasetInfo(CLASSES, SIZE, *measure_channels(sums), "", {})

    from gender_classifier.common.processes import keep_freed_memory  # noqa: PLC0415
    from gender_classifier.metrics.calibration import fit_temperature  # noqa: PLC0415
    from gender_classifier.model.inference import compute_logits  # noqa: PLC0415
    from gender_classifier.model.model_file import save_model  # noqa: PLC0415
    from gender_classifier.model.network import count_parameters  # noqa: PLC0415
    from gender_classifier.model.weights import load_weights  # noqa: PLC0415
    from gender_classifier.train.session import build_initial  # noqa: PLC0415
    from gender_classifier.train.trainer import Trainer  # noqa: PLC0415

    class PartialEpochs(Trainer):
        """Takes ``part`` random images in each epoch."""

        def __init__(self, part: int, *args: Any) -> None:
            super().__init__(*args)
            self.part = part
            self._cuts = range(self.params.batch_size, part - 1, self.params.batch_size)
            self._steps_per_epoch = 1 + len(self._cuts)

        def _draw_order(self, generator: Any) -> NDArray[np.int64]:
            return super()._draw_order(generator)[: self.part]

    keep_freed_memory()  # as the stage does
    params = read_params(changes)
    build = partial(build_initial, params, info, load_weights("none", ROOT, params.network))
    # A network that is thrown away measures the speed; its val set of two images takes no time.
    model, spec = build()
    pair = PackedSplit(val.images[:2], np.array([0, 1]))
    trial = min(len(data.images), _TRIAL * params.batch_size)
    epochs = PartialEpochs(trial, model, spec, data, pair, replace(params, epochs=10_000)).epochs()
    next(epochs)
    began, done = time.time(), 0
    while time.time() - began < _PROBE:
        next(epochs)
        done += trial
    speed = done / (time.time() - began)
    began = time.time()
    compute_logits(model, replace(spec, tta_margin=0.0), val.images)
    validation = 1.2 * (time.time() - began)  # with test-time augmentation of the images in doubt
    seconds = (deadline - time.time() - 0.5) * _PLANNED
    count = max(1, math.ceil(seconds / (len(data.images) / speed + validation)))
    part = min(len(data.images), max(trial, int((seconds / count - validation) * speed)))
    trainer = PartialEpochs(part, *build(), data, val, replace(params, epochs=count))
    began = time.time()
    for record in trainer.epochs():
        print(record, flush=True)
    seconds, best = time.time() - began, trainer.best
    assert best is not None
    spec = replace(trainer.spec, temperature=fit_temperature(best.val_logits, val.labels))
    save_model(out / "model.safetensors", best.state, spec)
    seen = count * part
    report = {
        "parameters": count_parameters(trainer.model), "batch_size": params.batch_size, "images": seen,
        "train_seconds": seconds, "val_accuracy": best.record.val_accuracy, "epochs": seen / len(data.images),
        "schedule_epochs": count, "records": [asdict(record) for record in trainer.records],
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report))


def export(out: Path) -> None:
    """Write the ONNX file that `predict` uses, as `evaluate` does; not part of the training."""
    from gender_classifier.evaluate.export import export_onnx  # noqa: PLC0415
    from gender_classifier.model.model_file import load_model  # noqa: PLC0415

    export_onnx(out / "model.onnx", *load_model(out / "model.safetensors"), {})


def read_params(changes: dict[str, Any]) -> Any:
    """Return the training params of params.yaml with ``changes``, by their keys there (``train.augment.scale``)."""
    from gender_classifier.pipeline.params import load_params  # noqa: PLC0415

    params = load_params(ROOT / "params.yaml").train
    changes = {key.removeprefix("train."): value for key, value in changes.items()}
    inner = {key.removeprefix("augment."): value for key, value in changes.items() if key.startswith("augment.")}
    plain = {key: value for key, value in changes.items() if not key.startswith("augment.")}
    if unknown := set(plain) - {field.name for field in fields(params)}:
        raise SystemExit(f"unknown params {sorted(unknown)}")
    return replace(params, **plain, augment=replace(params.augment, **inner))


def _decode(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    image = to_array(path.read_bytes(), SIZE, max_pixels=50_000_000)
    return image, sum_channels(image)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        pairs = (change.partition("=") for change in sys.argv[5:])
        given = {key: yaml.safe_load(value) for key, _, value in pairs}
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), given)
    else:
        export(Path(sys.argv[2]))
