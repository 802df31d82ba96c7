"""``params.yaml`` as one typed, frozen object with a section per stage."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import yaml

from gender_classifier.common.schema import build, flatten, section
from gender_classifier.errors import ModelError, ParamsError
from gender_classifier.evaluate.params import EvaluateParams
from gender_classifier.ingest.params import IngestParams
from gender_classifier.preprocess.params import PreprocessParams
from gender_classifier.train.params import TrainParams
from gender_classifier.verify.params import VerifyParams


@section
class Params:
    """All of ``params.yaml``."""

    ingest: IngestParams
    verify: VerifyParams
    preprocess: PreprocessParams
    train: TrainParams
    evaluate: EvaluateParams


def load_params(path: Path) -> Params:
    """Read and check ``params.yaml``.

    All sections are checked by every stage, so that a mistake in a late stage's section shows at once.

    Raises:
        ParamsError: the file is missing or not a YAML mapping; a key is unknown, missing, ill-typed or out of range;
            the network is unknown, or does not support the other keys' values; a promotion rule names a set that is
            not evaluated.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in a checkout, or restore it: git checkout params.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read ({error}); restore it: git checkout params.yaml") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML ({' '.join(str(error).split())}); correct that line") from None
    if not isinstance(raw, Mapping):
        found = f"{type(raw).__name__} {raw!r}" if raw is not None else "empty"
        raise ParamsError(f"{path}: holds {found}, not a mapping of keys; restore it: git checkout params.yaml")
    params = build(Params, raw, path)
    _check_gaps(params, path)
    _check_network(params, path)
    return params


def flatten_params(params: Params) -> dict[str, str | int | float | bool | None]:
    """Return all params by ``section.key``, top-level keys first."""
    flat = dict(flatten(params))
    return dict(sorted(flat.items(), key=lambda item: "." in item[0]))


def _check_gaps(params: Params, path: Path) -> None:
    evaluated = params.evaluate.extra
    for name in params.evaluate.promotion.max_gap:
        if name not in evaluated:
            raise ParamsError(
                f"{path}: `evaluate.promotion.max_gap` names the set {name!r}, which is not in `evaluate.extra` "
                f"({', '.join(evaluated) or 'no sets'}); add its path there, or write none"
            )


def _check_network(params: Params, path: Path) -> None:
    train = params.train
    if (train.network, train.stem) == ("alexnet", "original") and params.preprocess.image_size >= 63:
        return  # importing PyTorch takes seconds
    # Imported by name, since DVC watches imports and the network only decides whether these stages fail here.
    network = import_module("gender_classifier.model.network")
    try:
        network.check_choice(
            train.network,
            head=train.head,
            stem=train.stem,
            image_size=params.preprocess.image_size,
            weights=train.weights,
        )
    except ModelError as error:
        raise ParamsError(f"{path}: `train.network`: {error}") from None
