"""``params.yaml`` as typed, frozen sections: a stage reads one, and every wrong key is refused by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from gender_classifier.errors import ParamsError

Section = TypeVar("Section")


def _key(*, low: float | None = None, high: float | None = None, above: float | None = None, top: bool = False) -> Any:
    """Declare a key: inclusive bounds ``low`` and ``high``, exclusive ``above``; ``top`` puts it at top level."""
    return field(metadata={"low": low, "high": high, "above": above, "top": top})


@dataclass(frozen=True)
class IngestParams:
    """Where the images come from."""

    source: str = _key(top=True)
    sample_seed: int = _key(low=0)
    sample_train: int = _key(low=1)
    sample_val: int = _key(low=1)
    kaggle_version: int = _key(low=1)


@dataclass(frozen=True)
class VerifyParams:
    """Which images are fit to use, and what happens to the others."""

    min_side: int = _key(low=1)
    max_pixels: int = _key(low=1)
    wrong_mode: Literal["convert", "reject"] = _key()
    exact_duplicates: Literal["drop", "keep"] = _key()
    near_duplicates: Literal["group", "drop", "keep"] = _key()
    near_duplicate_distance: int = _key(low=0, high=128)
    conflicting_labels: Literal["drop", "keep"] = _key()
    leakage: Literal["drop_train", "drop_test", "keep"] = _key()
    max_rejected: float = _key(low=0, high=1)


@dataclass(frozen=True)
class PreprocessParams:
    """How images become arrays, and which of them validate."""

    image_size: int = _key(low=63, high=512)
    val_fraction: float = _key(above=0, high=0.5)
    split_seed: int = _key(low=0)


@dataclass(frozen=True)
class AugmentParams:
    """How far a training image may be varied. Zero switches a variation off."""

    flip: float = _key(low=0, high=1)
    rotate: float = _key(low=0, high=180)
    scale: float = _key(low=0, high=0.9)
    translate: float = _key(low=0, high=0.5)
    brightness: float = _key(low=0, high=1)
    contrast: float = _key(low=0, high=1)
    grey: float = _key(low=0, high=1)
    blur: float = _key(low=0, high=1)
    jpeg: float = _key(low=0, high=1)


@dataclass(frozen=True)
class TrainParams:
    """Everything that decides the trained model, given the arrays."""

    epochs: int = _key(low=1, high=100_000, top=True)
    batch_size: int = _key(low=1, high=1_000_000, top=True)
    lr: float = _key(above=0, high=100, top=True)
    weight_decay: float = _key(low=0, high=100, top=True)
    seed: int = _key(low=0, high=2**32 - 1, top=True)
    head: Literal["linear", "full"] = _key()
    weights: str = _key()
    trunk_lr: float = _key(low=0, high=100)
    class_balance: Literal["none", "weights", "sampling"] = _key()
    optimizer: Literal["adam", "adamw", "sgd"] = _key()
    momentum: float = _key(low=0, high=0.9999)
    schedule: Literal["one_cycle", "cosine", "constant"] = _key()
    warmup_fraction: float = _key(low=0, high=0.9)
    label_smoothing: float = _key(low=0, high=0.9)
    mixup: float = _key(low=0, high=10)
    ema_epochs: float = _key(low=0, high=1000)
    tta_margin: float = _key(low=0, high=1000)
    best_by: Literal["val_loss", "val_accuracy"] = _key()
    early_stopping: int = _key(low=0)
    device: str = _key()
    precision: Literal["auto", "bf16", "fp32"] = _key()
    deterministic: bool = _key()
    processes: int = _key(low=1, high=1024)
    shuffle_window: int = _key(low=0)
    augment: AugmentParams = _key()


@dataclass(frozen=True)
class PromotionParams:
    """When the newest version becomes champion in the model registry."""

    metric: Literal["best_val_accuracy", "best_val_loss", "test/accuracy", "test/loss"] = _key()
    min_gain: float = _key(low=0, high=100)
    min_accuracy: float = _key(low=0, high=1)


@dataclass(frozen=True)
class EvaluateParams:
    """How the report on the test set is drawn up."""

    ece_bins: int = _key(low=2, high=1000)
    worst_mistakes: int = _key(low=0, high=1000)
    robustness_images: int = _key(low=0)
    extra: Mapping[str, str] = _key()
    promotion: PromotionParams = _key()


@dataclass(frozen=True)
class Params:
    """All of ``params.yaml``."""

    ingest: IngestParams
    verify: VerifyParams
    preprocess: PreprocessParams
    train: TrainParams
    evaluate: EvaluateParams


def load_params(path: Path) -> Params:
    """Read and check ``params.yaml``.

    The whole file is checked whichever stage asks, so that a slip in a late section does not wait for hours.

    Raises:
        ParamsError: the file is missing or no YAML mapping; a key is unknown, missing, ill-typed or out of range.
    """
    raw = _read_yaml(path)
    sections = {item.name: get_type_hints(Params)[item.name] for item in fields(Params)}
    top_level = {item.name: name for name, kind in sections.items() for item in fields(kind) if item.metadata["top"]}
    _refuse_unknown(raw, [*top_level, *sections], path, prefix="")
    built = {}
    for name, kind in sections.items():
        section = raw.get(name)
        if section is None:
            raise ParamsError(f"{path}: section `{name}` is missing; add it (see the version in Git)")
        if not isinstance(section, Mapping):
            raise ParamsError(f"{path}: `{name}` is {_show(section)}, not a section of keys; give it an indented block")
        own = {key: raw[key] for key, owner in top_level.items() if owner == name and key in raw}
        built[name] = _build(kind, section, own, path, prefix=f"{name}.")
    return Params(**built)


def flatten_params(path: Path) -> dict[str, str | int | float | bool | None]:
    """Return every key of ``params.yaml`` as ``section.key``, numbers as numbers (``1e-05`` too)."""
    params = load_params(path)
    flat: dict[str, Any] = {}
    for section in fields(params):
        flat.update(_flatten(getattr(params, section.name), f"{section.name}."))
    top = [key for key in flat if "." not in key]
    return {key: flat[key] for key in [*top, *(key for key in flat if "." in key)]}


def _flatten(section: Any, prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for item in fields(section):
        value = getattr(section, item.name)
        if hasattr(value, "__dataclass_fields__"):
            flat.update(_flatten(value, f"{prefix}{item.name}."))
        elif isinstance(value, Mapping):
            flat.update({f"{prefix}{item.name}.{key}": one for key, one in value.items()})
        else:
            flat[item.name if item.metadata["top"] else prefix + item.name] = value
    return flat


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; run from a checkout, or restore it: git checkout params.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read ({error}); restore it: git checkout params.yaml") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend that line") from None
    if not isinstance(raw, Mapping):
        raise ParamsError(f"{path}: holds {_show(raw)}, not a mapping of keys; restore it: git checkout params.yaml")
    return raw


def _build(kind: type[Section], section: Mapping[str, Any], top: Mapping[str, Any], path: Path, prefix: str) -> Section:
    hints = get_type_hints(kind)
    items: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]
    _refuse_unknown(section, [item.name for item in items if not item.metadata["top"]], path, prefix)
    values = {}
    for item in items:
        given, name = (top, item.name) if item.metadata["top"] else (section, prefix + item.name)
        value = given.get(item.name, MISSING)
        if value is MISSING:
            raise ParamsError(f"{path}: key `{name}` is missing; add it (see the version in Git)")
        values[item.name] = _convert(value, hints[item.name], item, path, name)
    return kind(**values)


def _convert(value: Any, kind: Any, item: Field[Any], path: Path, name: str) -> Any:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            hint = _nearest(str(value), [str(choice) for choice in choices])
            raise ParamsError(f"{path}: `{name}` is {_show(value)}; choose one of {', '.join(choices)}{hint}")
        return value
    if hasattr(kind, "__dataclass_fields__"):
        if not isinstance(value, Mapping):
            raise ParamsError(f"{path}: `{name}` is {_show(value)}, not a section of keys; give it an indented block")
        return _build(kind, value, {}, path, prefix=f"{name}.")
    if kind is bool:
        if not isinstance(value, bool):
            raise ParamsError(f"{path}: `{name}` is {_show(value)}; it must be true or false")
        return value
    if get_origin(kind) is Mapping:
        return _convert_mapping(value, item, path, name)
    if kind is str:
        # `weights: none` and `source: 2024` are meant as text whatever YAML takes them for.
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise ParamsError(f"{path}: `{name}` is {_show(value)}; it must be text")
        return str(value)
    number = _number(value, kind)
    if number is None:
        wanted = "a whole number" if kind is int else "a number"
        raise ParamsError(f"{path}: `{name}` is {_show(value)}; it must be {wanted}{_range(item)}")
    if not _in_range(number, item):
        raise ParamsError(f"{path}: `{name}` is {_show(value)}, out of range; it must be{_range(item).lstrip(',')}")
    return number


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def _convert_mapping(value: Any, item: Field[Any], path: Path, name: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ParamsError(f"{path}: `{name}` is {_show(value)}, not names with their texts; write {{}} for none")
    for key in value:
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ParamsError(
                f"{path}: `{name}` has the name {_show(key)}; a name is up to 40 letters, digits, _ and -, the first a "
                "letter or digit"
            )
    return {key: _convert(one, str, item, path, f"{name}.{key}") for key, one in value.items()}


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value: Any, kind: type) -> int | float | None:
    """Return ``value`` as ``kind``, or None. PyYAML reads ``1e-05``, which DVC writes, as text."""
    if isinstance(value, bool):
        return None
    if kind is int:
        return value if isinstance(value, int) else None
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def _in_range(number: float, item: Field[Any]) -> bool:
    low, high, above = (item.metadata[bound] for bound in ("low", "high", "above"))
    return (
        math.isfinite(number)
        and (low is None or number >= low)
        and (high is None or number <= high)
        and (above is None or number > above)
    )


def _range(item: Field[Any]) -> str:
    low, high, above = (item.metadata[bound] for bound in ("low", "high", "above"))
    parts = [
        f"above {above:g}" if above is not None else "",
        f"at least {low:g}" if low is not None else "",
        f"at most {high:g}" if high is not None else "",
    ]
    text = " and ".join(part for part in parts if part)
    return f", {text}" if text else ", finite"


def _refuse_unknown(given: Mapping[str, Any], known: list[str], path: Path, prefix: str) -> None:
    for key in given:
        if key not in known:
            raise ParamsError(f"{path}: unknown key `{prefix}{key}`{_nearest(str(key), known, prefix)}")


def _nearest(word: str, known: list[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{prefix}{close[0]}`?" if close else f"; known here: {', '.join(known)}"


def _show(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if value is not None else "empty"
