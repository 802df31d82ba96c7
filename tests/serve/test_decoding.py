"""Images that strangers send harm no more than the process that decodes them."""

import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from checkout import ROOT
from conftest import draw_pixels, encode, picture
from served import grey, write_model

from gender_classifier.data.images import Crop, to_array
from gender_classifier.errors import ImageError, ServiceError
from gender_classifier.serve import decoding as module
from gender_classifier.serve.decoding import Decoders

CROP = Crop(0.85, 0.7)  # the pictures below are 0.8 and 0.9 times as wide as high

# A decoding process in which some files do what attacks do, whatever the decoders of this machine are immune to.
ATTACKED = (
    "import json, os, sys; sys.path[:] = json.loads(sys.argv[1]); import gender_classifier.serve.decoding_process as process\n"
    "real, held = process.to_array, []\n"
    "attacks = {b'hang': lambda: sum(range(10**15)), b'crash': lambda: os.kill(os.getpid(), 11),\n"
    "           b'eat': lambda: held.extend(bytes(2**20) for _ in range(2**20)), b'exit': lambda: os._exit(0)}\n"
    "process.to_array = lambda data, *a, **k: attacks.get(data, lambda: None)() or real(data, *a, **k)\n"
    "process.serve(*map(float, sys.argv[2:]))"
)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    monkeypatch.setattr(module, "_PROGRAM", ATTACKED)
    monkeypatch.setattr(module, "DEADLINE", 1.0)
    made = Decoders(2, image_size=64, max_pixels=1_000_000, max_bytes=2**20, crop=CROP)
    yield made
    made.stop()
    module._end_all(made._started)


def find_children(decoders: Decoders) -> list[psutil.Process]:
    found = [psutil.Process(one.pid) for one in tuple(decoders._started) if psutil.pid_exists(one.pid)]
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_answers_are_those_of_the_decoder(decoders: Decoders) -> None:
    pictures = [picture(seed) for seed in range(20)] + [encode(draw_pixels(1, 900, 1000), "PNG")]
    for data, future in zip(pictures, [decoders.submit(data) for data in pictures], strict=True):
        np.testing.assert_array_equal(future.result(), to_array(data, 64, max_pixels=1_000_000, crop=CROP))
    assert len(find_children(decoders)) == 2
    for data in (b"", b"no image", picture(1)[:-400], encode(draw_pixels(1, 1001, 1000), "PNG")):
        with pytest.raises(ImageError) as expected:
            to_array(data, 64, max_pixels=1_000_000)
        with pytest.raises(ImageError, match=f"^{re.escape(str(expected.value))}$") as found:
            decoders.submit(data).result()
        assert found.value.reason == expected.value.reason


@pytest.mark.parametrize(
    ("attack", "reason", "message"),
    [
        (b"hang", "too_slow", "takes more than 1 s to decode; save it again"),
        (b"crash", "unreadable", "the decoder ended without an answer .status -11.; save it again"),
        (b"exit", "unreadable", "the decoder ended without an answer .status 0.; save it again"),
        (b"eat", "too_large", "needs more memory than there is"),
    ],
)
def test_what_ends_a_process_is_refused_and_the_next_image_is_decoded(
    decoders: Decoders, attack: bytes, reason: str, message: str
) -> None:
    if attack == b"eat" and sys.platform != "linux":
        pytest.skip("memory is limited as Linux does")
    futures = [decoders.submit(data) for data in (attack, picture(1), attack, picture(2))]
    for future in futures[::2]:
        with pytest.raises(ImageError, match=message) as caught:
            future.result()
        assert caught.value.reason == reason
    for seed, future in zip((1, 2), futures[1::2], strict=True):
        np.testing.assert_array_equal(future.result(), to_array(picture(seed), 64, max_pixels=1_000_000))
    assert len(find_children(decoders)) <= 2
    assert len(decoders._started) == len(find_children(decoders))


def test_stopping_ends_what_is_decoded_and_cancels_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROGRAM", ATTACKED)
    monkeypatch.setattr(module, "DEADLINE", 600.0)
    decoders = Decoders(1, image_size=64, max_pixels=1_000_000, max_bytes=2**20)
    running, waiting = decoders.submit(b"hang"), decoders.submit(picture(1))
    wait_for(lambda: bool(decoders._busy))
    decoders.stop()
    assert waiting.cancelled()
    with pytest.raises(ImageError, match="ended without an answer"):
        running.result()
    assert find_children(decoders) == []
    assert decoders.submit(picture(1)).result().shape == (64, 64, 3)


def test_processes_end_with_the_last_reference() -> None:
    decoders = Decoders(1, image_size=64, max_pixels=1_000_000, max_bytes=2**20)
    decoders.submit(picture(1)).result()
    (child,) = find_children(decoders)
    del decoders
    gc.collect()
    wait_for(lambda: not child.is_running())


def test_a_process_that_cannot_be_started_is_one_line(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ServiceError, match=r"a decoding process cannot be started \(No such file or directory\)"):
            decoders.submit(picture(1)).result()
    assert decoders.submit(picture(1)).result().shape == (64, 64, 3)


def test_a_process_has_few_modules_and_no_foreign_files(decoders: Decoders) -> None:
    with (ROOT / "pyproject.toml").open() as held:
        decoders.submit(picture(1)).result()
        (child,) = find_children(decoders)
        if not Path(f"/proc/{child.pid}/fd").is_dir():
            pytest.skip("open files are read as Linux shows them")
        opened = [str(path.readlink()) for path in Path(f"/proc/{child.pid}/fd").iterdir()]
        assert held.name not in opened
        assert len(opened) == 5
        assert sorted(set(opened) - {"/dev/null"}) == sorted(one for one in opened if one.startswith("socket:"))
        maps = Path(f"/proc/{child.pid}/maps").read_text()
        assert not re.search("onnxruntime|libtorch|pandas", maps)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_is_the_services_to_judge(decoders: Decoders, number: signal.Signals) -> None:
    decoders.submit(picture(1)).result()
    (child,) = find_children(decoders)
    child.send_signal(number)
    decoders.submit(picture(2)).result()
    assert find_children(decoders) == [child]


ORPHANED = """
import sys
from gender_classifier.serve import decoding
decoding._PROGRAM, decoding.DEADLINE = sys.argv[1], 2.0
decoders = decoding.Decoders(2, image_size=64, max_pixels=1000000, max_bytes=2**20)
import io; from PIL import Image
buffer = io.BytesIO(); Image.new("RGB", (9, 9)).save(buffer, "PNG")
for future in [decoders.submit(buffer.getvalue()) for _ in range(2)]: future.result()
decoders.submit(b"hang")
print(*[process.pid for process in decoders._started], flush=True)
import time; time.sleep(600)
"""


def test_nothing_is_left_when_the_service_is_killed() -> None:
    command = [sys.executable, "-c", ORPHANED, ATTACKED]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert 1 <= len(pids) <= 2
        parent.kill()

    def are_gone() -> bool:  # where nobody collects orphans, they stay as zombies
        return all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie" for pid in pids)

    wait_for(are_gone)


SERVED = """
import sys
from gender_classifier.serve import decoding
from gender_classifier.cli.main import main
decoding._PROGRAM, decoding.DEADLINE = sys.argv[1], 2.0
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_the_service_stops_in_the_middle_of_an_image_and_serves_beside_attacks(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    command = [sys.executable, "-c", SERVED, ATTACKED, "serve", "--port", "0", "--model", str(model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as service:
        try:
            assert service.stdout is not None
            address = re.findall(r"http://\S+", service.stdout.readline())[0]
            with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
                files = [("images", (name, data, "image/png")) for name, data in (
                    ("a", b"hang"), ("b", grey(204)), ("c", b"crash"), ("d", grey(51)))]  # fmt: skip
                rows = client.post("/predict", files=files).json()
                assert [row.get("label", row.get("error", {}).get("reason")) for row in rows] == [
                    "too_slow", "male", "unreadable", "female"]  # fmt: skip
                assert client.post("/predict", files={"images": b"hang"}).status_code == 422
            attack = subprocess.Popen(
                [sys.executable, "-c", "import sys, httpx; print(httpx.post(sys.argv[1], files=[('images', b'hang')] * 60,"
                 "trust_env=False, timeout=60))", f"{address}/predict"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            children = psutil.Process(service.pid).children()
            wait_for(lambda: any(child.cpu_times().user > 0.5 for child in children if child.is_running()))
            began = time.monotonic()
            service.terminate()
            assert service.wait(30) == 0
            assert time.monotonic() - began < 14
            attack.wait(30)
            wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
        finally:
            service.kill()
