"""Checkpoints: whole or absent, named after what decides the result, and enough to go on bit for bit."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import PARAMS, trainer

from gender_classifier.common.files import replacing
from gender_classifier.train.checkpoints import (
    Checkpoint,
    discard_checkpoints,
    fingerprint,
    hold_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

STATE = Checkpoint({"weight": torch.arange(6.0).reshape(2, 3)}, {"run_id": "abc", "log": [{"step": 1}]})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    assert load_checkpoint(path) is None
    save_checkpoint(path, STATE)
    found = load_checkpoint(path)
    assert found is not None
    assert found.facts == STATE.facts
    assert torch.equal(found.tensors["weight"], STATE.tensors["weight"])


@pytest.mark.parametrize("keep", [0, 4, 30, 120])
def test_a_torn_file_is_no_checkpoint(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, STATE)
    path.write_bytes(path.read_bytes()[:keep])
    assert load_checkpoint(path) is None


def test_the_name_tells_every_difference(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    names = {
        fingerprint({"lr": 1}, [one]),
        fingerprint({"lr": 2}, [one]),
        fingerprint({"lr": 1}, [other]),
        fingerprint({"lr": 1}, [one, other]),
    }
    assert len(names) == 4
    assert fingerprint({"a": 1, "b": 2}, [one]) == fingerprint({"b": 2, "a": 1}, [one])


def test_discarding_takes_the_runs_own_and_what_nobody_can_go_on_from(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / f"{number:02}.safetensors"
        save_checkpoint(path, Checkpoint({"weight": torch.ones(9)}, {"run_id": str(number % 11)}))
        os.utime(path, (number, number))
    for name, content in (("empty", b""), ("torn", path.read_bytes()[:-9]), ("foreign", b"x" * 99)):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / ".00.safetensors-0123456789abcdef.tmp").touch()  # of a writer that was killed
    discard_checkpoints(tmp_path, "0")
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {f"{number:02}" for number in range(1, 11)}
    assert not list(tmp_path.glob(".*.tmp"))


def test_discarding_leaves_what_runs(tmp_path: Path) -> None:
    own, torn, other = (tmp_path / f"{name}.safetensors" for name in ("own", "torn", "other"))
    save_checkpoint(own, STATE)
    save_checkpoint(other, Checkpoint({}, {"run_id": "other"}))
    torn.write_bytes(b"")
    with hold_checkpoint(own), hold_checkpoint(torn), hold_checkpoint(other), replacing(other) as writing:
        writing.write_bytes(b"half")
        discard_checkpoints(tmp_path, "abc")
        assert own.exists()
        assert torn.exists()
        assert writing.read_bytes() == b"half"
        assert all(path.with_suffix(".lock").exists() for path in (own, torn, other))
        writing.write_bytes(other.read_bytes())
    discard_checkpoints(tmp_path, "abc")
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"other.safetensors"}


def test_a_second_training_waits_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    code = (
        "import sys, pathlib; from gender_classifier.train.checkpoints import hold_checkpoint\n"
        "with hold_checkpoint(pathlib.Path(sys.argv[1])): print('mine', flush=True)"
    )
    with hold_checkpoint(path):
        other = subprocess.Popen(
            [sys.executable, "-u", "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert other.stdout is not None
        assert "the same training runs in another process" in other.stdout.readline()
        assert other.poll() is None
    with other.stdout:
        assert other.stdout.readline() == "mine\n"
    assert other.wait(20) == 0


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam"}, {"early_stopping": 1}]
)
@pytest.mark.parametrize("stop", [1, 2])
def test_going_on_ends_in_equal_bits(tmp_path: Path, stop: int, options: dict[str, object]) -> None:
    params = replace(PARAMS, epochs=3, **options)  # type: ignore[arg-type]
    whole = trainer(params)
    records = list(whole.epochs())
    first = trainer(params)
    for record in first.epochs():
        if record.epoch == stop:
            break
    tensors, facts = first.state_dict()
    save_checkpoint(tmp_path / "one.safetensors", Checkpoint(tensors, facts))
    found = load_checkpoint(tmp_path / "one.safetensors")
    assert found is not None
    second = trainer(replace(params))
    second.load_state_dict(found.tensors, found.facts)
    assert [*first.records, *second.epochs()] == records
    assert whole.best is not None
    assert second.best is not None
    assert second.best.record == whole.best.record
    assert all(torch.equal(second.best.state[name], value) for name, value in whole.best.state.items())
    assert all(torch.equal(second.model.state_dict()[name], value) for name, value in whole.model.state_dict().items())
