"""The model card: one page of Markdown, made of a run's own files. After Mitchell et al., "Model cards" (2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gender_classifier.dataset import DatasetInfo
from gender_classifier.evaluation import Report, wilson_interval
from gender_classifier.file_names import describe_value
from gender_classifier.layout import SAMPLE, SAMPLE_NOTE
from gender_classifier.markdown import build_table, code_span, escape_markdown
from gender_classifier.model import ModelSpec

_MOST_EPOCHS = 12  # rows of the table of curves

_LIMITS = """\
## Intended use

A study of an image classification pipeline: training, tracking, comparing and serving a small model.

## Limits

- **Two labels are not what gender is.** The model repeats how somebody labelled pictures; it knows nothing of people.
- **Decide nothing about people with it**: not access, not prices, not what anybody is shown.
- The Kaggle data set holds pictures of celebrities; faces of other ages, light and origins are rare in it, and
  errors there are likely more frequent than the figures above say.
- By eye, 1-3 % of its labels are wrong. An accuracy near the top measures that too.
- It knows tight face crops only. Looser framing costs accuracy; a picture without a face gets a label all the same.
"""


def describe_limits(source: str) -> str:
    """Return what the model is for and what it is not, as Markdown; goes into the card and into the model file.

    Args:
        source: the data set's name.
    """
    return (f"> {SAMPLE_NOTE}\n\n" if source == SAMPLE else "") + _LIMITS


def write_card(
    *,
    source: str,
    params: Mapping[str, object],
    spec: ModelSpec,
    info: DatasetInfo,
    counts: Mapping[str, int],
    report: Report,
    best: Mapping[str, float],
    curves: Sequence[Mapping[str, str]],
) -> str:
    """Return the card.

    Args:
        source: the data set's name.
        params: what the model was trained with.
        spec: its classes, size, second look and temperature.
        info: of the arrays.
        counts: images a split.
        report: on the test set.
        best: ``metrics/train.json``.
        curves: rows of ``metrics/curves.csv``.
    """
    note = f"\n> {SAMPLE_NOTE}\n" if source == SAMPLE else ""
    metrics = report.metrics
    robust = metrics.get("robust_accuracy")
    classes = " or ".join(map(code_span, spec.classes))
    recalls = [
        (name, int(row[place]), int(row.sum()))
        for place, (name, row) in enumerate(zip(spec.classes, report.confusion, strict=True))
    ]
    figures = [
        ("accuracy", f"{metrics['accuracy']:.4f}", _span(metrics["accuracy_low"], metrics["accuracy_high"])),
        *(
            (f"recall of {escape_markdown(name)}", f"{hits / total:.4f}", _span(*wilson_interval(hits, total)))
            for name, hits, total in recalls
        ),
        ("ROC AUC", f"{metrics['roc_auc']:.4f}", ""),
        ("loss (nats an image)", f"{metrics['loss']:.4f}", ""),
        ("expected calibration error", f"{metrics['ece']:.4f}", ""),
        *([("accuracy over all corruptions", f"{robust:.4f}", "")] if robust is not None else []),
    ]
    shown = [(code_span(key), code_span(describe_value(value))) for key, value in params.items()]
    return f"""\
# Model card: gender-classifier
{note}
AlexNet ({escape_markdown(spec.head)} head) that calls a face crop, scaled to \
{spec.image_size}×{spec.image_size} px RGB, {classes}.

## Data

- source: {code_span(describe_value(source))}; manifest SHA-256 `{info.manifest_sha256}`
- images: {", ".join(f"{count:,} {split}" for split, count in counts.items())}
- the epoch was chosen on val; the test images were seen once, afterwards

## Figures on the {counts["test"]:,} test images

{build_table(("figure", "value", "95 % interval"), figures)}

Kept epoch: {best["best_epoch"]:.0f}, with validation accuracy {best["best_val_accuracy"]:.4f} and loss \
{best["best_val_loss"]:.4f}; probabilities are calibrated on val, temperature {spec.temperature:.3f}.
{_describe_second_look(spec, metrics)}
{_tabulate_curves(curves)}

## Parameters

{build_table(("key", "value"), shown)}

{_LIMITS}"""


def _describe_second_look(spec: ModelSpec, metrics: Mapping[str, float]) -> str:
    if not spec.tta_margin:
        return ""
    return f"""
An image whose two highest logits differ by less than {spec.tta_margin:g} is seen mirrored as well (test-time
augmentation): {metrics["tta_share"]:.1%} of the test images. Without that, accuracy is \
{metrics["accuracy_without_tta"]:.4f}.
"""


def _tabulate_curves(curves: Sequence[Mapping[str, str]]) -> str:
    count = min(len(curves), _MOST_EPOCHS)
    places = sorted({round(number * (len(curves) - 1) / max(count - 1, 1)) for number in range(count)})
    rows = [
        (
            escape_markdown(row["epoch"]),
            *(f"{float(row[key]):.4f}" for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")),
        )
        for row in (curves[place] for place in places)
    ]
    return build_table(("epoch", "train loss", "val loss", "train accuracy", "val accuracy"), rows)


def _span(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"
