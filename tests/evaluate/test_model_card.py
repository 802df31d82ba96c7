"""The card says where the figures come from, how sure they are, and what not to do with the model."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import picture

from gender_classifier.data.dataset import DatasetInfo
from gender_classifier.evaluate.measured import MeasuredSet
from gender_classifier.evaluate.model_card import describe_limits, write_card
from gender_classifier.metrics.scores import evaluate
from gender_classifier.model.model_file import ModelSpec

SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))


def card(
    source: str,
    epochs: int,
    *,
    spec: ModelSpec = SPEC,
    more: dict[str, object] | None = None,
    measured: list[MeasuredSet] | None = None,
    **tta: float,
) -> str:
    labels = np.repeat(range(len(spec.classes)), 50)
    logits = np.eye(len(spec.classes), dtype=np.float32)[labels] * 4
    logits[:5] = logits[:5, ::-1]  # five of fifty female faces are called male
    info = DatasetInfo(spec.classes, 64, SPEC.channel_mean, SPEC.channel_std, "d" * 64, {})
    report = evaluate(logits, labels, classes=spec.classes)
    report.metrics.update(tta)
    accuracy, low, high = (report.metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    test = MeasuredSet("test", 100, accuracy, low, high, dict.fromkeys(spec.classes, 1.0) | {spec.classes[0]: 0.9})
    return write_card(
        source=source,
        params={"epochs": epochs, "lr": 0.001} | (more or {}),
        spec=replace(spec, tta_margin=1.5 if tta else 0.0),
        info=info,
        counts={"train": 1800, "val": 200, "test": 100},
        metrics=report.metrics,
        measured=[*(measured or ()), test],
        best={"kept_epoch": min(2, epochs), "kept_accuracy": 0.9512, "kept_loss": 0.1234},
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


def test_the_bias_is_told_only_if_there_is_one() -> None:
    assert "temperature 1.000.\n" in card("faces.zip", 3)
    biased = card("faces.zip", 3, spec=replace(SPEC, bias=(0.256, -0.256)))
    assert (
        "temperature 1.000, bias +0.26 `female`, -0.26 `male` (logits, fitted on clean and corrupted images of val; before it, the accuracy and the loss above).\n"
        in biased
    )


def test_data_figures_and_limits_are_there() -> None:
    text = card("faces.zip", 3)
    for part in (
        "\nAlexNet that classifies a face crop, scaled to 64×64 px RGB, as `female` or `male`.",
        "`faces.zip`; manifest SHA-256 `" + "d" * 64,
        "1,800 train, 200 val, 100 test",
        "The lowest figure is the recall of female on test: 0.9000.",
        "set   images  accuracy     95 % interval  recall female  recall male\n"
        "test     100    0.9500  0.8882 to 0.9785         0.9000       1.0000\n",  # Wilson's interval of 95 of 100
        "Kept epoch: 2, with validation accuracy 0.9512 and loss 0.1234; probabilities are calibrated on val, temperature",
        "\nlr      0.001\n",
        "under the MIT licence. The terms of the images are those of their source; this project does not know them.",
        "## Intended use",
        "Two labels are not what gender is",
        "Decide nothing about people",
        "Some labels of any data set are wrong",
    ):
        assert part in text
    assert "celebrities" not in text  # those are Kaggle's
    assert "By eye, 1-3 % of its labels are wrong" in card("kaggle", 3)
    assert "images of celebrities" in card("kaggle", 3)
    assert "Synthetic" not in text
    assert "Synthetic data" in card("sample", 3)
    assert "kaggle.com/datasets/cashutosh/gender-classification-dataset." in card("kaggle", 3)


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (replace(SPEC, head="full"), "AlexNet (full head)"),
        (replace(SPEC, architecture="resnet10"), "ResNet-10"),
        (replace(SPEC, architecture="resnet18", stem="small"), "ResNet18 (small stem)"),
    ],
)
def test_the_network_is_named(spec: ModelSpec, title: str) -> None:
    assert f"\n{title} that classifies" in card("faces.zip", 3, spec=spec)


def test_other_classes_have_other_words() -> None:
    text = card("faces.zip", 3, spec=replace(SPEC, classes=("child", "woman", "man")))
    assert "px RGB, as `child`, `woman` or `man`." in text
    assert "gender is" not in text
    assert "**A label is somebody's judgement.** The model repeats how somebody labelled images" in text


def test_the_worst_set_comes_first_then_limits_and_the_params_last() -> None:
    worst = MeasuredSet("utk, race `x`\n```", 143, 0.74, 0.66, 0.8, {"female": 0.5, "male": 0.9})
    text = card("faces.zip", 3, measured=[worst])
    first_table = text.split("```text\n")[1].splitlines()
    assert first_table[1].split()[:2] == ["utk,", "race"]
    assert first_table[1].endswith("143    0.7400  0.6600 to 0.8000         0.5000       0.9000")
    assert first_table[2].startswith("test ")
    assert first_table[3] == "```"
    assert "recall of female on utk, race &#96;x&#96;" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## How good it is, the worst first", "## Intended use", "## Limits", "## How to load it", "## Licence",
        "## Data", "## Training", "## Parameters"]  # fmt: skip


def test_the_lines_that_load_the_model_work(
    tmp_path: Path, served_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(served_model, tmp_path / "models" / "model.onnx")
    (tmp_path / "face.jpg").write_bytes(picture(0))
    monkeypatch.chdir(tmp_path)
    lines = card("faces.zip", 3).split("```python\n")[1].split("```")[0]
    assert len(lines.splitlines()) == 3
    exec(lines, {})
    assert "name='face.jpg', label='" in capsys.readouterr().out


def test_a_start_from_the_shipped_model_is_told() -> None:
    assert "started from the shipped model" in card("faces.zip", 3, more={"train.weights": "pretrained"})
    assert "shipped model" not in card("faces.zip", 3, more={"train.weights": "none"})


def test_a_second_look_is_told_with_its_cost_and_its_gain() -> None:
    text = card("faces.zip", 3, tta_share=0.0662, accuracy_without_tta=0.9375)
    assert "differ by less than 1.5 is also seen mirrored" in text
    assert "augmentation): 6.6% of the test images. Without that, accuracy is 0.9375.\n" in text
    assert "mirrored" not in card("faces.zip", 3)


def test_long_curves_are_thinned_out_with_both_ends_and_the_kept_epoch() -> None:
    rows = [line.split() for line in card("faces.zip", 100).splitlines() if " 0.5000 " in line and "0.8000" in line]
    epochs = [int(row[0]) for row in rows]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 100, 12)
    assert epochs == sorted(set(epochs))
    assert [row for row in rows if row[-1] == "kept"] == [["2", "0.5000", "0.4000", "0.8000", "0.9000", "kept"]]


def test_the_limits_are_the_cards_own() -> None:
    for source in ("faces.zip", "sample"):
        limits = describe_limits(source, SPEC.classes)
        assert "## Intended use" in limits
        assert "## Limits" in limits
        assert all(line in card(source, 1).splitlines() for line in limits.splitlines())
    assert limits.startswith("> Synthetic data")


@pytest.mark.parametrize("source", ["sample", "kaggle", "faces.zip"])
def test_a_paragraph_is_one_line_since_mlflow_breaks_it_at_each(source: str) -> None:
    prose = "".join(card(source, 1).split("```")[::2]).splitlines()
    assert not [below for above, below in pairwise(prose) if above and below and not below.startswith(("- ", ">"))]


def test_full_paths_are_not_in_the_card() -> None:
    text = card("/home/me/private/faces.zip/copy", 3, more={"source": "/home/me/private/faces.zip/copy", "x": "~/y/z"})
    assert "- source: `faces.zip/copy`;" in text
    assert "\nsource  faces.zip/copy\n" in text
    assert "\nx       z\n" in text
    assert "private" not in text


def test_names_are_no_markup() -> None:
    spec = replace(SPEC, classes=("<img src=x>|`", "male\x1b[31m"))
    text = card("a`b|<script>", 3, spec=spec, more={"a|b": "x|y\n```\nz", "link": "![x](http://evil)"})
    assert "\x1b" not in text
    blocks = text.split("\n```")
    assert len(blocks) == 9  # three tables and the lines of Python, each opened and closed
    outside = "".join(blocks[::2])
    assert not [part for part in ("<img", "<script", "![x](") if part in outside]
