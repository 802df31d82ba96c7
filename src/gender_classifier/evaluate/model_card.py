"""The model card: one page of Markdown, made of a run's own files. After Mitchell et al., "Model cards" (2019)."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined

from gender_classifier.data.dataset import DatasetInfo
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.names import SAMPLE, SAMPLE_NOTE
from gender_classifier.evaluate.markdown import build_table, code_span, escape_markdown
from gender_classifier.metrics.scores import Report, wilson_interval
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import find_network

_TEMPLATE = "model_card.md.j2"
_MAX_EPOCHS = 12  # rows of the table of curves

_LIMITS = """\
## Intended use

A study of an image classification pipeline: training, tracking, comparing and serving a small model.

## Limits

- **Two labels are not what gender is.** The model repeats how somebody labelled images; it knows nothing of people.
- **Decide nothing about people with it**: not access, not prices, not what anybody is shown.
- The Kaggle data set holds images of celebrities; faces of other ages, light and origins are rare in it, and
  errors there are likely more frequent than the figures above say.
- By eye, 1-3 % of its labels are wrong. An accuracy near the top measures that too.
- It knows tight face crops only. Looser framing costs accuracy; an image without a face gets a label all the same.
"""


def describe_limits(source: str) -> str:
    """Return the intended use and the limits, as Markdown; they go into the card and into the model file.

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
        params: that the model was trained with; the top-level ones come first.
        spec: its network, classes, size, test-time augmentation and temperature.
        info: of the arrays.
        counts: images a split.
        report: on the test set.
        best: ``metrics/train.json``.
        curves: rows of ``metrics/curves.csv``.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701  no HTML
    environment.filters["text"] = escape_markdown
    environment.globals["table"] = build_table
    template = environment.from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        note=SAMPLE_NOTE if source == SAMPLE else "",
        network=find_network(spec.architecture).title,
        classes=[code_span(name) for name in spec.classes],
        source=code_span(describe_value(source)),
        spec=spec,
        info=info,
        counts=[f"{count:,} {split}" for split, count in counts.items()],
        num_test=f"{counts['test']:,}",
        figures=list(_list_figures(spec, report)),
        metrics=report.metrics,
        best=best,
        curves=_thin_out(curves),
        params=[
            (code_span(key), code_span(describe_value(params[key])))
            for key in sorted(params, key=lambda key: "." in key)
        ],
        limits=_LIMITS,
    )


def _list_figures(spec: ModelSpec, report: Report) -> Iterator[tuple[str, str, str]]:
    metrics = report.metrics
    yield "accuracy", f"{metrics['accuracy']:.4f}", _span(metrics["accuracy_low"], metrics["accuracy_high"])
    for place, (name, row) in enumerate(zip(spec.classes, report.confusion, strict=True)):
        hits, total = int(row[place]), int(row.sum())
        yield f"recall of {escape_markdown(name)}", f"{hits / total:.4f}", _span(*wilson_interval(hits, total))
    yield "ROC AUC", f"{metrics['roc_auc']:.4f}", ""
    yield "loss (nats an image)", f"{metrics['loss']:.4f}", ""
    yield "expected calibration error", f"{metrics['ece']:.4f}", ""
    if "robust_accuracy" in metrics:
        yield "accuracy over all corruptions", f"{metrics['robust_accuracy']:.4f}", ""


def _thin_out(curves: Sequence[Mapping[str, str]]) -> list[list[str]]:
    count = min(len(curves), _MAX_EPOCHS)
    places = sorted({round(number * (len(curves) - 1) / max(count - 1, 1)) for number in range(count)})
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return [
        [escape_markdown(curves[place]["epoch"]), *(f"{float(curves[place][key]):.4f}" for key in keys)]
        for place in places
    ]


def _span(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"
