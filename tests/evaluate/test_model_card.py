"""The card says where the figures come from, how sure they are, and what not to do with the model."""

from dataclasses import replace

import numpy as np

from gender_classifier.data.dataset import DatasetInfo
from gender_classifier.evaluate.model_card import describe_limits, write_card
from gender_classifier.metrics.scores import evaluate
from gender_classifier.model.model_file import ModelSpec

SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))


def card(
    source: str, epochs: int, *, spec: ModelSpec = SPEC, more: dict[str, object] | None = None, **tta: float
) -> str:
    labels = np.repeat([0, 1], 50)
    logits = np.eye(2, dtype=np.float32)[labels] * 4
    logits[:5] = logits[:5, ::-1]  # five of fifty female faces are called male
    info = DatasetInfo(spec.classes, 64, SPEC.channel_mean, SPEC.channel_std, "d" * 64, {})
    report = evaluate(logits, labels, classes=spec.classes)
    report.metrics.update(tta)
    return write_card(
        source=source,
        params={"epochs": epochs, "lr": 0.001} | (more or {}),
        spec=replace(spec, tta_margin=1.5 if tta else 0.0),
        info=info,
        counts={"train": 1800, "val": 200, "test": 100},
        report=report,
        best={"best_epoch": 2, "best_val_accuracy": 0.9512, "best_val_loss": 0.1234},
        curves=[
            {
                "epoch": str(epoch),
                "train_loss": "0.5",
                "val_loss": "0.4",
                "train_accuracy": "0.8",
                "val_accuracy": "0.9",
            }
            for epoch in range(1, epochs + 1)
        ],
    )


def test_data_figures_and_limits_are_there() -> None:
    text = card("faces.zip", 3)
    for part in (
        "`faces.zip`; manifest SHA-256 `" + "d" * 64,
        "1,800 train, 200 val, 100 test",
        "| accuracy | 0.9500 | 0.8882 to 0.9785 |",  # Wilson's interval of 95 of 100
        "| recall of female | 0.9000 | 0.7864 to 0.9565 |",
        "| recall of male | 1.0000 | 0.9287 to 1.0000 |",
        "Kept epoch: 2, with validation accuracy 0.9512 and loss 0.1234; probabilities are calibrated on val, temperature",
        "| `lr` | `0.001` |",
        "## Intended use",
        "Two labels are not what gender is",
        "Decide nothing about people",
        "labels are wrong",
        "celebrities",
    ):
        assert part in text
    assert "Synthetic" not in text
    assert "Synthetic data" in card("sample", 3)


def test_a_second_look_is_told_with_its_cost_and_its_gain() -> None:
    text = card("faces.zip", 3, tta_share=0.0662, accuracy_without_tta=0.9375)
    assert "differ by less than 1.5 is also seen mirrored" in text
    assert "augmentation): 6.6% of the test images. Without that, accuracy is 0.9375.\n" in text
    assert "mirrored" not in card("faces.zip", 3)


def test_long_curves_are_thinned_out_with_both_ends() -> None:
    rows = [
        line for line in card("faces.zip", 100).splitlines() if line.endswith("| 0.5000 | 0.4000 | 0.8000 | 0.9000 |")
    ]
    epochs = [int(row.split("|")[1]) for row in rows]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 100, 12)
    assert epochs == sorted(set(epochs))


def test_the_limits_are_the_cards_own() -> None:
    for source in ("faces.zip", "sample"):
        limits = describe_limits(source)
        assert "## Intended use" in limits
        assert "## Limits" in limits
        assert all(line in card(source, 1).splitlines() for line in limits.splitlines())
    assert limits.startswith("> Synthetic data")


def test_full_paths_are_not_in_the_card() -> None:
    text = card("/home/me/private/faces.zip/copy", 3, more={"source": "/home/me/private/faces.zip/copy", "x": "~/y/z"})
    assert "- source: `faces.zip/copy`;" in text
    assert "| `source` | `faces.zip/copy` |" in text
    assert "| `x` | `z` |" in text
    assert "private" not in text


def test_names_are_no_markup() -> None:
    spec = replace(SPEC, classes=("<img src=x>|`", "male\x1b[31m"))
    text = card("a`b|<script>", 3, spec=spec, more={"a|b": "x|y\nz", "link": "![x](http://evil)"})
    assert not {"\x1b", "<img", "<script", "|`", "![x]("} & {
        part for part in ("\x1b", "<img", "<script", "|`") if part in text
    }
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} <= {3, 4, 6}
    assert "![x](" not in text.replace("`![x](http://evil)`", "")
