"""A small model with a known answer, and the service as a process of its own."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import numpy as np
import onnx
from checkout import ROOT
from conftest import encode
from onnx import TensorProto, helper, numpy_helper
from servers import answers, serving

SIZE = 32
LIMITS = """\
## Limits

- **Two labels are not what gender is.** It repeats how somebody labelled
  pictures; see `README.md`.
- Decide nothing about people with it.
"""


def write_model(path: Path, metadata: Mapping[str, str] | None = None, threshold: float | None = None) -> Path:
    """Write a model that finds a picture the more `male`, the brighter its upper left quarter is; nothing else counts.

    With a ``threshold`` its second output is the probability of `female`: darker pictures are unfamiliar.
    """
    half = SIZE // 2
    constants = {
        "starts": [0, 0], "ends": [half, half], "axes": [1, 2], "all": [1, 2, 3],
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["values", "starts", "ends", "axes"], ["quarter"]),
        helper.make_node("ReduceMean", ["quarter", "all"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["male"]),
        helper.make_node("Sub", ["one", "male"], ["female"]),
        helper.make_node("Unsqueeze", ["male", "last"], ["male_column"]),
        helper.make_node("Unsqueeze", ["female", "last"], ["female_column"]),
        helper.make_node("Concat", ["female_column", "male_column"], ["probs"], axis=1),
    ]
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([1], np.int64), "last"))
    tensors += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("white", 255.0), ("one", 1.0))]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["batch", 2])],
        tensors,
    )
    if threshold is not None:
        graph.node.append(helper.make_node("Identity", ["female"], ["unfamiliarity"]))
        graph.output.append(helper.make_tensor_value_info("unfamiliarity", TensorProto.FLOAT, ["batch"]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entries = {"classes": json.dumps(["female", "male"]), "image_size": str(SIZE)}
    entries |= {} if threshold is None else {"unfamiliarity_threshold": repr(threshold)}
    full = {
        "version": "0.1.0", "network": "AlexNet", "min_side": "32", "data_digest": "0123456789abcdef", "limits": LIMITS,
        "measured": json.dumps([
            {"name": "abroad", "images": 2500, "accuracy": 0.85, "accuracy_low": 0.83, "accuracy_high": 0.86,
             "recalls": {"female": 0.74}},
            {"name": "test", "images": 400, "accuracy": 0.958, "accuracy_low": 0.948, "accuracy_high": 0.966,
             "recalls": {"female": 0.95, "male": 0.966}},
        ]),
        "metrics": json.dumps({"accuracy": 0.958, "accuracy_low": 0.948, "accuracy_high": 0.966}),
    }  # fmt: skip
    helper.set_model_props(model, entries | dict(full if metadata is None else metadata))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def grey(value: int, format: str = "PNG", side: int = 40) -> bytes:
    """Return a picture of one grey: the model above says male with probability value / 255."""
    return encode(np.full((side, side, 3), value, np.uint8), format)


@dataclass(frozen=True)
class Served:
    """A running service."""

    address: str
    port: int
    process: Popen[bytes]
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()


@contextmanager
def served(model: Path | str, folder: Path, *arguments: str, **variables: str) -> Iterator[Served]:
    """Run `gender-classifier serve` in ``folder`` until the block ends."""
    command = [sys.executable, "-m", "gender_classifier", "serve", "--model", str(model), "--port", "0", *arguments]
    variables = {"PYTHONPATH": str(ROOT / "src"), **variables}
    log = folder / "server.log"

    def find_port() -> int | None:
        found = re.search(r"http://[0-9.]+:(\d+) ", log.read_text())
        return int(found[1]) if found else None

    def is_up() -> bool:
        port = find_port()
        return port is not None and answers(f"http://127.0.0.1:{port}/health")

    log.unlink(missing_ok=True)
    with serving(command, folder, is_up, **variables) as process:
        port = find_port()
        assert port is not None
        yield Served(f"http://127.0.0.1:{port}", port, process, folder)
