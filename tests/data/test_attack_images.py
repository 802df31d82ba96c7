"""What a file of a few bytes can make the decoder do is bounded: refused by name, or cut off, or the pixels' price."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attack_images import READ, REFUSED
from fuzz_images import MAX_PIXELS

from gender_classifier.data.images import MAX_BYTES_PER_PIXEL, to_array
from gender_classifier.errors import ImageError

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", REFUSED)
def test_costly_features_are_refused_by_name(name: str) -> None:
    build, message = REFUSED[name]
    max_pixels = 50_000_000 if "60 scans" in name else MAX_PIXELS
    with pytest.raises(ImageError, match=re.escape(message)) as caught:
        to_array(build(), 64, max_pixels=max_pixels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READ)
def test_what_is_cut_off_keeps_no_picture_from_being_read(name: str) -> None:
    assert to_array(READ[name](), 64, max_pixels=MAX_PIXELS).shape == (64, 64, 3)


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    if sys.platform != "linux":
        pytest.skip("memory is read as Linux gives it")
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    command = [sys.executable, str(HERE / "attack_images.py")]
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:].decode()
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_no_attack_takes_long(measured: dict[str, dict[str, Any]]) -> None:
    """Seconds of CPU; each takes below 0.4 on one core of 2020, and some took minutes."""
    assert {name: one["seconds"] for name, one in measured.items() if one["seconds"] > 4} == {}


@pytest.mark.slow
def test_no_attack_takes_more_memory_than_is_stated(measured: dict[str, dict[str, Any]]) -> None:
    """The file is held twice more, once cut to its pixels."""
    assert {
        name: one["growth_bytes"]
        for name, one in measured.items()
        if one["growth_bytes"] > MAX_PIXELS * MAX_BYTES_PER_PIXEL + 2 * one["size"]
    } == {}
