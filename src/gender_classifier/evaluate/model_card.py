"""The model card: one page of Markdown, made of a run's own files. After Mitchell et al., "Model cards" (2019)."""

from collections.abc import Mapping, Sequence

from gender_classifier.common.paths import PRETRAINED
from gender_classifier.data.dataset import DatasetInfo
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.names import CLASSES, KAGGLE, SAMPLE, SAMPLE_NOTE
from gender_classifier.evaluate.markdown import build_table, code_span, render_template
from gender_classifier.evaluate.measured import MeasuredSet
from gender_classifier.evaluate.unfamiliar.shares import UnfamiliarRow, describe_unfamiliar
from gender_classifier.model.model_file import ModelSpec, describe_network

_TEMPLATE = "model_card.md.j2"
_MAX_EPOCHS = 12  # rows of the table of curves

_TERMS = {
    SAMPLE: "The images are drawn by that code.",
    KAGGLE: "The terms of the images are those of https://www.kaggle.com/datasets/cashutosh/gender-classification-dataset.",
}
_UNKNOWN_TERMS = "The terms of the images are those of their source; this project does not know them."

# A newline within a paragraph is a line break in MLflow's description of a version.

_USE = """\
## Intended use

A study of an image classification pipeline: training, tracking, comparing and serving a small model.

## Limits

"""

_KAGGLE_LIMITS = """\
- The Kaggle data set holds images of celebrities; faces of other ages, light and origins are rare in it, and \
errors there are likely more frequent than in the test set.
- By eye, 1-3 % of its labels are wrong. An accuracy near the top measures that too.
"""

_OTHER_LIMITS = """\
- On faces of ages, light and origins that are rare in its data, errors are likely more frequent than in the \
test set.
- Some labels of any data set are wrong. An accuracy near the top measures that too.
"""

_ALL_LIMITS = """\
- **Decide nothing about people with it**: not access, not prices, not what anybody is shown.
{of_data}\
- It knows tight face crops only. Looser framing costs accuracy; an image without a face gets a label all the same, \
and most such images, not all, are marked as unfamiliar.
"""


def describe_limits(source: str, classes: Sequence[str]) -> str:
    """Return the intended use and the limits, as Markdown; they go into the card and into the model file.

    Args:
        source: the data set's name.
        classes: of the model.
    """
    return (f"> {SAMPLE_NOTE}\n\n" if source == SAMPLE else "") + _list_limits(source, classes)


def _list_limits(source: str, classes: Sequence[str]) -> str:
    about = "Two labels are not what gender is" if set(classes) == set(CLASSES) else "A label is somebody's judgement"
    first = f"- **{about}.** The model repeats how somebody labelled images; it knows nothing of people.\n"
    of_data = _KAGGLE_LIMITS if source == KAGGLE else _OTHER_LIMITS
    return _USE + first + _ALL_LIMITS.format(of_data=of_data)


def write_card(
    *,
    source: str,
    params: Mapping[str, object],
    spec: ModelSpec,
    info: DatasetInfo,
    counts: Mapping[str, int],
    metrics: Mapping[str, float],
    measured: Sequence[MeasuredSet],
    unfamiliar: Sequence[UnfamiliarRow] = (),
    best: Mapping[str, float],
    curves: Sequence[Mapping[str, str]],
) -> str:
    """Return the card.

    Args:
        source: the data set's name.
        params: that the model was trained with; the top-level ones come first.
        spec: its network, classes, size, test-time augmentation, temperature and bias.
        info: of the arrays.
        counts: images a split.
        metrics: on the test set.
        measured: every set that it was measured on, the worst first.
        unfamiliar: how often images of each set are; empty for a model that cannot tell.
        best: ``metrics/train.json``, of the kept epoch.
        curves: rows of ``metrics/curves.csv``.
    """
    return render_template(
        __package__,
        _TEMPLATE,
        note=SAMPLE_NOTE if source == SAMPLE else "",
        network=describe_network(spec),
        classes=_join_or([code_span(name) for name in spec.classes]),
        source=code_span(describe_value(source)),
        terms=_TERMS.get(source, _UNKNOWN_TERMS),
        spec=spec,
        bias=describe_bias(spec),
        info=info,
        warm=params.get("train.weights") == PRETRAINED,
        counts=[f"{count:,} {split}" for split, count in counts.items()],
        worst=measured[0],
        measured=tabulate_measured(measured, spec.classes),
        unfamiliar=describe_unfamiliar(unfamiliar),
        metrics=metrics,
        best=best,
        curves=_thin_out(curves, int(best["kept_epoch"])),
        params=[(key, describe_value(params[key])) for key in sorted(params, key=lambda key: "." in key)],
        limits=_list_limits(source, spec.classes),
    )


def _join_or(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def describe_bias(spec: ModelSpec) -> str:
    """Return what is added to each class's logit; empty for a model without a bias."""
    return ", ".join(f"{value:+.2f} {code_span(name)}" for name, value in zip(spec.classes, spec.bias, strict=False))


def tabulate_measured(measured: Sequence[MeasuredSet], classes: Sequence[str]) -> str:
    """Return a table of measured sets, in their order."""
    header = ["set", "images", "accuracy", "95 % interval", *(f"recall {name}" for name in classes)]
    return build_table(header, [_list_cells(found, classes) for found in measured])


def _list_cells(found: MeasuredSet, classes: Sequence[str]) -> list[str]:
    recalls = (f"{found.recalls[name]:.4f}" if name in found.recalls else "" for name in classes)
    interval = f"{found.accuracy_low:.4f} to {found.accuracy_high:.4f}"
    return [found.name, f"{found.images:,}", f"{found.accuracy:.4f}", interval, *recalls]


def _thin_out(curves: Sequence[Mapping[str, str]], kept: int) -> list[list[str]]:
    """Return the rows of up to ``_MAX_EPOCHS`` epochs, the first, the last and the ``kept`` one among them."""
    count = min(len(curves), _MAX_EPOCHS - 1)
    spread = (round(number * (len(curves) - 1) / max(count - 1, 1)) for number in range(count))
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return [
        [
            curves[place]["epoch"],
            *(f"{float(curves[place][key]):.4f}" for key in keys),
            "kept" if place == kept - 1 else "",
        ]
        for place in sorted({*spread, kept - 1})
    ]
