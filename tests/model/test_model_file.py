"""A model file that loads but says what cannot be is refused in one line, by whatever loads it."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from served import SIZE, write_model

from gender_classifier.cli.main import main
from gender_classifier.errors import ModelError
from gender_classifier.model.model_file import FORMAT, ModelSpec, load_model
from gender_classifier.model.network import build_model
from gender_classifier.predict.predictor import Predictor

HOSTILE = {
    "escape": "a\x1b[31m", "line": "a\nb", "return": "a\rb", "NUL": "a\0b", "bidi": "a\u202eb", "isolate": "a\u2066b",
    "zero width": "a\u200bb", "separator": "a\u2028b", "C1": "a\x9bb",
}  # fmt: skip

CLASSES: dict[str, tuple[str, str]] = {
    "no JSON": ("female, male", "classes are not JSON"),
    "deep": ("[" * 100_000, "classes are not JSON"),
    "text": ('"female"', "not a list of 2 to 1,000 names"),
    "object": ('{"female": 0, "male": 1}', "not a list of 2 to 1,000 names"),
    "one": ('["female"]', "not a list of 2 to 1,000 names"),
    "none": ("[]", "not a list of 2 to 1,000 names"),
    "many": (json.dumps([str(n) for n in range(1001)]), "not a list of 2 to 1,000 names"),
    "twice": ('["male", "male"]', "lists a class twice"),
    "number": ('["female", 1]', "has the class 1; a name is 1 to 100 printable characters"),
    "null": ('["female", null]', "has the class None"),
    "empty": ('["female", ""]', "has the class ''"),
    "blank": ('["female", " "]', "has the class ' '"),
    "long": (json.dumps(["female", "m" * 101]), "a name is 1 to 100 printable characters"),
    **{f"class with {what}": (json.dumps(["female", name]), "printable") for what, name in HOSTILE.items()},
}  # fmt: skip

SIZES = ["1000000", "1025", "0", "7", "-32", "+32", "32.0", "64px", "", "\u0663\u0662x", "9" * 5000, "NaN", "[32]"]


def refuse(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Predictor(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert len(text) < 700


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_are_no_names(tmp_path: Path, name: str) -> None:
    text, message = CLASSES[name]
    refuse(write_model(tmp_path / "model.onnx", {"classes": text}), message)


@pytest.mark.parametrize("size", SIZES)
def test_image_sizes_that_are_none(tmp_path: Path, size: str) -> None:
    path = write_model(tmp_path / "model.onnx", {"image_size": size})
    refuse(path, "has the image size .*; it is 8 to 1,024 px")


@pytest.mark.parametrize("what", HOSTILE)
def test_metadata_that_must_not_reach_a_terminal(tmp_path: Path, what: str) -> None:
    for key, value in (("version", HOSTILE[what]), ("limits", f"# Limits\n\n{HOSTILE[what]}"), (HOSTILE[what], "1")):
        path = write_model(tmp_path / "model.onnx", {key: value})
        if what in ("line", "return"):
            continue  # lines are text; they are escaped where they are shown
        refuse(path, "not printable")


def test_metadata_of_megabytes_are_refused_and_ordinary_text_is_not(tmp_path: Path) -> None:
    refuse(write_model(tmp_path / "model.onnx", {"limits": "x" * 2**21}), "has [0-9,]+ characters of metadata, more")
    path = write_model(
        tmp_path / "model.onnx", {"limits": "# L\u00edmites \U0001f600\n\n\t- 5\u00a0%\r\n", "classes": '["é", "男"]'}
    )
    assert Predictor(path).classes == ("é", "男")


def changed(path: Path, change: Callable[[Any], object]) -> Path:
    """Write the small model of the tests with a change to its graph."""
    model = onnx.load(write_model(path))
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def set_shape(port: Any, *shape: object) -> None:
    kind = port.type.tensor_type.elem_type
    port.CopyFrom(helper.make_tensor_value_info(port.name, kind, shape))


def rename_output(graph: Any) -> None:
    graph.output[0].name = "scores"
    graph.node[-1].output[0] = "scores"


def add_output(graph: Any) -> None:
    graph.output.append(helper.make_tensor_value_info("male", TensorProto.FLOAT, None))


def add_input(graph: Any) -> None:
    graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def take_floats(graph: Any) -> None:
    graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", SIZE, SIZE, 3]))


def give_doubles(graph: Any) -> None:
    graph.node[-1].output[0] = "floats"
    graph.node.append(helper.make_node("Cast", ["floats"], ["probs"], to=TensorProto.DOUBLE))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("probs", TensorProto.DOUBLE, ["n", 2]))


def give_logits(graph: Any) -> None:
    graph.node[-1].output[0] = "probs_1"
    graph.node.append(helper.make_node("Mul", ["probs_1", "white"], ["probs"]))


def give_nan(graph: Any) -> None:
    graph.node[-1].output[0] = "probs_1"
    graph.node.append(helper.make_node("Log", ["probs_1"], ["logs"]))
    graph.node.append(helper.make_node("Sqrt", ["logs"], ["probs"]))


def give_three(graph: Any) -> None:
    graph.node[-1].input.append("male_column")
    set_shape(graph.output[0], "n", "c")


def reshape(graph: Any, *factors: float) -> None:
    """Reshape probs by a shape that is known only when the model runs: its own, times ``factors``."""
    graph.node[-1].output[0] = "probs_1"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(factors, np.float32), "factors"))
    graph.node.extend(
        [
            helper.make_node("Shape", ["probs_1"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["sides"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sides", "factors"], ["scaled"]),
            helper.make_node("Cast", ["scaled"], ["wanted"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["probs_1", "wanted"], ["probs"]),
        ]
    )
    set_shape(graph.output[0], "n", "c")


GRAPHS: dict[str, tuple[Callable[[Any], object], str]] = {
    "output of another name": (rename_output, "has the outputs .*'scores'.*; this needs probs, tensor"),
    "another second output": (add_output, "has the second output .*'male'.*; this needs unfamiliarity"),
    "two inputs": (add_input, "has the inputs .*; this needs images"),
    "floats": (take_floats, r"has the inputs .*tensor\(float\).*; this needs images, tensor\(uint8\)"),
    "doubles": (give_doubles, r"has the outputs .*double.*; this needs probs, tensor\(float\)"),
    "logits": (give_logits, "which are not probabilities"),
    "NaN": (give_nan, "which are not probabilities"),
    "another number of classes": (give_three, r"has the outputs .*\['n', 3\].*; this needs"),
    "another number of rows": (lambda graph: reshape(graph, 2, 0.5), r"gives \[6, 1\] numbers for 3 images"),
    "fails": (lambda graph: reshape(graph, 5, 7), "cannot be run"),
    "one image at a time": (lambda graph: set_shape(graph.input[0], 1, SIZE, SIZE, 3), "has the inputs .*this needs"),
    "another size": (lambda graph: set_shape(graph.input[0], "n", SIZE + 1, SIZE + 1, 3), "has the inputs"),
    "channels first": (lambda graph: set_shape(graph.input[0], "n", 3, SIZE, SIZE), "has the inputs"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_answer_another_question(tmp_path: Path, name: str) -> None:
    change, message = GRAPHS[name]
    refuse(changed(tmp_path / "model.onnx", change), message)


def test_a_graph_that_leaves_its_sizes_open_is_asked(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.onnx", lambda graph: set_shape(graph.output[0], "n", "c"))
    assert Predictor(path).image_size == SIZE


@pytest.mark.parametrize(
    "command",
    [["predict", "a.png"], ["monitor", "a.png"], ["quantize", "out.onnx", "a.png"], ["serve", "--port", "0"]],
    ids=lambda command: command[0],
)
def test_every_command_refuses_in_one_line(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.onnx", {"image_size": "1000000"})
    assert main([*command, "--model", "model.onnx"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"gender-classifier {command[0]}: error: model.onnx: has the image size 1000000; it is 8 to")
    assert err.count("\n") == 1


SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
FIELDS: list[tuple[str, object]] = [
    ("image_size", 10**6), ("image_size", 0), ("image_size", -64), ("image_size", "64"), ("image_size", 64.0),
    ("image_size", True), ("image_size", None), ("classes", ["a"]), ("classes", "ab"), ("classes", ["a", "a"]),
    ("classes", ["a", "\x1b[2J"]), ("classes", ["a", 1]), ("classes", []), ("channel_mean", [0.5, 0.5]),
    ("channel_mean", [0.5, 0.5, float("nan")]), ("channel_mean", 0.5), ("channel_mean", ["0", "0", "0"]),
    ("channel_std", [1, 1, 0]), ("channel_std", [1, 1, -1]), ("channel_std", [1, 1, float("inf")]), ("channel_std", None),
    ("temperature", 0), ("temperature", float("nan")), ("temperature", "1"), ("temperature", -1), ("tta_margin", -1),
    ("tta_margin", float("inf")), ("tta_margin", [0]), ("head", "round"), ("head", ["linear"]), ("architecture", "vgg"), ("architecture", ["alexnet"]), ("stem", "small"),
    ("bias", [1.0]), ("bias", [1, 2, 3]), ("bias", ["1", "2"]), ("bias", [0, float("nan")]), ("bias", 0.5), ("bias", None),
]  # fmt: skip


def write_safetensors(path: Path, state: dict[str, torch.Tensor] | None = None, **fields: object) -> Path:
    description = json.dumps(asdict(SPEC) | {"format": FORMAT} | fields)
    save_file(state or {"x": torch.zeros(1)}, path, {"gender_classifier": description})
    return path


@pytest.mark.parametrize(("key", "value"), FIELDS)
def test_descriptions_in_safetensors_that_cannot_be(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(write_safetensors(tmp_path / "model.safetensors", **{key: value}))
    text = str(caught.value)
    assert text.isprintable()
    assert key.rstrip("es").replace("_", " ") in text.replace("_", " ")
    assert "do not fit" not in text


def test_tensors_that_are_no_weights(tmp_path: Path) -> None:
    state = build_model("linear", 2, 64).state_dict()
    name = "classifier.weight"
    for value, message in (
        (state[name].to(torch.int64), "is of torch.int64"),
        (torch.full_like(state[name], float("nan")), "holds NaN or infinity"),
    ):
        path = write_safetensors(tmp_path / "model.safetensors", {**state, name: value})
        with pytest.raises(ModelError, match=f"its tensor `{name}` {message}; train it again"):
            load_model(path)
    path = write_safetensors(tmp_path / "model.safetensors", state)
    assert load_model(path)[1] == replace(SPEC)


def test_a_tensors_name_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"a\x1b[31m\n": torch.zeros(1)})
    with pytest.raises(ModelError, match="do not fit its own description") as caught:
        load_model(path)
    assert str(caught.value).isprintable()
