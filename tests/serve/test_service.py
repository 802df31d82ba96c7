"""The service's answers, its limits, and what it must never do; in process, and as a process of its own."""

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from checkout import ROOT
from conftest import encode, picture
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import SIZE, Served, grey, served, write_model

from gender_classifier.cli.main import main
from gender_classifier.cli.serve import read_key
from gender_classifier.data.formats.image_files import FORMATS
from gender_classifier.errors import ModelError
from gender_classifier.monitor.collect import measure_images
from gender_classifier.pipeline.params import load_params
from gender_classifier.predict.predictor import Answer, Predictor
from gender_classifier.serve import app as service_module
from gender_classifier.serve.app import Settings, build_app
from gender_classifier.serve.uploads import Capacity, RequestError
from gender_classifier.verify.inspection import inspect
from gender_classifier.verify.policies import judge

KEY = "a-key-for-tests"
POLICY = load_params(ROOT / "params.yaml").verify


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model, threads=1)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    settings = Settings(max_bytes=100_000, max_images=5, max_pixels=250_000)
    with TestClient(build_app(predictor, settings), base_url="http://localhost") as client:
        yield client


def files(*pictures: bytes, field: str = "images") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(field, (f"{number}.png", data, "image/png")) for number, data in enumerate(pictures)]


def reason(answer: httpx.Response) -> tuple[int, str]:
    """Return status and reason; the message is one finished line."""
    error = answer.json()["error"]
    assert set(error) == {"reason", "message"}
    assert "\n" not in error["message"]
    assert len(error["message"]) > 10
    return answer.status_code, error["reason"]


# What it says


def test_one_picture(client: TestClient) -> None:
    answer = client.post("/predict", files=files(grey(204)))
    assert answer.status_code == 200
    assert answer.json() == [
        {
            "name": "0.png",
            "label": "male",
            "prob": 0.8,
            "uncertain": False,
            "unfamiliar": None,  # the model cannot tell
            "probs": {"female": 0.2, "male": 0.8},
        }
    ]


def test_an_unfamiliar_picture_is_marked_and_keeps_its_label(tmp_path: Path) -> None:
    predictor = Predictor(write_model(tmp_path / "model.onnx", threshold=0.6))
    client = TestClient(build_app(predictor, Settings()), base_url="http://localhost")
    found = client.post("/predict", files=files(grey(255), grey(51), b"a note", grey(102), grey(103))).json()
    assert [one.get("unfamiliar") for one in found] == [False, True, None, False, False]  # 0.6 is not above 0.6
    assert [one.get("label") for one in found] == ["male", "female", None, "female", "female"]


def test_several_are_answered_in_order_and_a_bad_one_does_not_spoil_the_others(client: TestClient) -> None:
    answer = client.post("/predict", files=files(grey(51), b"a note", grey(255), b""))
    assert answer.status_code == 200
    found = answer.json()
    assert [one["name"] for one in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert [one.get("label") for one in found] == ["female", None, "male", None]
    assert [one.get("prob") for one in found] == [0.8, None, 1.0, None]
    assert [one["error"]["reason"] for one in found if "error" in one] == ["not_an_image", "empty"]
    answer = client.post("/predict", files=files(b"", b"a note"))
    assert (answer.status_code, len(answer.json())) == (200, 2)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read(client: TestClient, format: str) -> None:
    (found,) = client.post("/predict", files=files(grey(10, format))).json()
    assert (found["label"], found["uncertain"]) == ("female", False)


@pytest.mark.parametrize("data", [encode(np.zeros((31, 90, 3), np.uint8), "PNG"), grey(200, side=31)])
def test_too_small_an_image_is_refused_as_verify_refuses_it(
    client: TestClient, predictor: Predictor, tmp_path: Path, model: Path, data: bytes,
    capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """By `/predict`, `/explain`, the library, `predict` and `monitor`; the shortest side is in the model's file."""
    assert predictor.min_side == 32
    record = inspect("Training/male/1.png", data, max_pixels=10**6).record
    assert judge([record], replace(POLICY, min_side=32))[0].reason == "too_small"
    for path, field in (("/predict", "images"), ("/explain", "image")):
        assert reason(client.post(path, files=files(data, field=field))) == (422, "too_small")
    (tmp_path / "small.png").write_bytes(data)
    (found,) = predictor.predict([tmp_path / "small.png"])
    assert found.error.endswith("px are too small; each side needs at least 32 px")
    assert main(["predict", str(tmp_path / "small.png"), "--model", str(model)]) == 1
    assert f"small.png: {found.error}" in capsys.readouterr().err
    for side in (32, 40):
        assert client.post("/predict", files=files(grey(200, side=side))).status_code == 200


def test_a_wide_image_is_judged_by_its_middle_by_all_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `/predict`, `/explain`, the library, `predict` and `monitor`; the model says `male` of what is bright."""
    pixels = np.full((40, 80, 3), 255, np.uint8)
    pixels[:, 25:55] = 0  # of the left half 62 % are bright, of the left half of the middle 25 %
    (tmp_path / "wide.png").write_bytes(encode(pixels, "PNG"))
    whole, cropped = (
        write_model(tmp_path / f"{name}.onnx", {"crop": text})
        for name, text in (("whole", "null"), ("cropped", "[1.5, 1.0]"))
    )
    for path, label in ((whole, "male"), (cropped, "female")):
        predictor = Predictor(path, threads=1)
        assert next(predictor.predict([tmp_path / "wide.png"])).label == label
        (batch,) = measure_images(predictor, [("wide.png", encode(pixels, "PNG"))])
        assert batch.values["class"].tolist() == [predictor.classes.index(label)]
        assert (batch.values["width"].tolist(), batch.values["height"].tolist()) == ([80], [40])  # as it came
        with TestClient(build_app(predictor, Settings()), base_url="http://localhost") as client:
            assert client.post("/predict", files=files(encode(pixels, "PNG"))).json()[0]["label"] == label
            assert client.post("/explain", files=files(encode(pixels, "PNG"), field="image")).json()["label"] == label
            crop = client.get("/model").json()["accepts"]["crop"]
            assert crop == ({"above": 1.5, "aspect": 1.0} if path == cropped else None)
        assert main(["predict", str(tmp_path / "wide.png"), "--model", str(path), "--threshold", "0"]) == 0
        assert f"\n{label} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "[1]", "[0.5, 0.8]", "[1, NaN]", "[Infinity, 1]", "[0, 0]", '["1", "1"]', "[true, true]"]
)
def test_a_damaged_crop_is_refused(tmp_path: Path, text: str) -> None:
    path = write_model(tmp_path / "odd.onnx", {"crop": text})
    with pytest.raises(ModelError, match="odd.onnx: (has the crop .*; it is null or|its crop are not JSON)"):
        Predictor(path)


def test_a_model_of_older_versions_takes_any_size_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert Predictor(write_model(tmp_path / "old.onnx", {})).min_side == 1
    for text in ("0", "-1", "x", "", "1e3", "9" * 12):
        path = write_model(tmp_path / "odd.onnx", {"min_side": text})
        with pytest.raises(ModelError, match="odd.onnx: has the min_side .*; it is 1 to 65,535 px"):
            Predictor(path)


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '[{"name": "a"}]', '[{"name": "a", "images": 1, "accuracy": NaN}]', "[" * 10_000]
)
def test_a_damaged_list_of_sets_is_none(tmp_path: Path, text: str) -> None:
    client = TestClient(build_app(Predictor(write_model(tmp_path / "m.onnx", {"measured": text})), Settings()),
                        base_url="http://localhost")  # fmt: skip
    assert client.get("/model").json()["measured"] == []


def test_it_says_what_the_predictor_says(client: TestClient, predictor: Predictor) -> None:
    pictures = [picture(seed) for seed in range(5)]
    found = client.post("/predict", files=files(*pictures)).json()
    expected = predictor.compute_probs(np.stack([predictor.prepare(one) for one in pictures]))
    np.testing.assert_allclose([[*one["probs"].values()] for one in found], expected, atol=1e-6)


def test_below_the_threshold_it_is_uncertain(predictor: Predictor) -> None:
    client = TestClient(build_app(predictor, Settings(threshold=0.6)), base_url="http://localhost")
    found = client.post("/predict", files=files(grey(150), grey(160))).json()
    assert [one["uncertain"] for one in found] == [True, False]


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\x.png", "ünïcode 😀.png", "a" * 3000, 'quo"te.png', ""])
def test_a_name_is_only_a_name(client: TestClient, name: str) -> None:
    answer = client.post("/predict", files=[("images", (name, grey(1), "text/html"))])
    (found,) = answer.json()
    assert answer.headers["content-type"] == "application/json"
    if name.isprintable() and '"' not in name and "\\" not in name:
        assert found["name"] == name[:200]


def send_named(client: TestClient, disposition: str) -> str:
    part = f'--b\r\nContent-Disposition: form-data; name="images"; {disposition}\r\n\r\n'.encode()
    answer = client.post(
        "/predict",
        content=part + grey(240) + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    name: str = answer.json()[0]["name"]
    return name


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''na%C3%AFve%20%E5%A5%B3.png", "na\u00efve \u5973.png"),
        ("filename*=utf-8'en'%e2%82%ac%20rates.png", "\u20ac rates.png"),
        ("filename*=\"UTF-8''quoted%22.png\"", 'quoted".png'),
        ("filename*=iso-8859-1''%A3%20rates.png", "\u00a3 rates.png"),
        ("filename=\"naive.png\"; filename*=UTF-8''na%C3%AFve.png", "na\u00efve.png"),
        ("FileName*=UTF-8''na%C3%AFve.png ; filename=\"naive.png\"", "na\u00efve.png"),
        ("filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("filename*=UTF-8''cut%E5%A5.png", "cut\ufffd.png"),
        ("filename*=UTF-8''" + "a" * 300, "a" * 200),
        # Not of that form: what the plain parameter says counts.
        ('filename="plain.png"; filename*=na%C3%AFve.png', "plain.png"),
        ("filename=\"plain.png\"; filename*=klingon''a.png", "plain.png"),
        ("filename=\"plain.png\"; filename*=UTF-8''50%.png", "plain.png"),
        ("filename=\"x; filename*=UTF-8''inside.png\"", "x; filename*=UTF-8''inside.png"),
        ('filename="100%25 sure.png"', "100%25 sure.png"),
        ('filename="say \\"hi\\".png"', 'say "hi".png'),
        ("x=1", ""),
    ],
)
def test_names_are_understood_as_clients_write_them(client: TestClient, disposition: str, name: str) -> None:
    """curl escapes quotes with backslashes; others send the extended form of RFC 8187."""
    assert send_named(client, disposition) == name


@pytest.mark.parametrize(
    "path",
    [
        *service_module.PAGE,
        "/model",
        "/health",
        "/metrics",
        "/openapi.json",
        "/no",
    ],
)
def test_head_answers_as_get_without_the_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert get.content
    if path != "/metrics":  # counts the request before
        assert head.headers == get.headers


def test_head_is_allowed_where_get_is_and_asks_for_the_key(client: TestClient, predictor: Predictor) -> None:
    assert client.head("/predict").status_code == 405
    assert client.head("/predict").headers["allow"] == "POST"
    assert client.post("/model").headers["allow"] == "GET, HEAD"
    keyed = TestClient(build_app(predictor, Settings(api_key="secret")), base_url="http://localhost")
    assert keyed.head("/metrics").status_code == 401
    assert keyed.head("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_the_heat_map_shows_the_quarter_that_decides(client: TestClient) -> None:
    pixels = np.full((40, 40, 3), 20, np.uint8)
    pixels[:20, :20] = 250
    answer = client.post("/explain", files=files(encode(pixels, "PNG"), field="image"))
    found = answer.json()
    grid = np.array(found["grid"])
    assert (found["name"], found["label"], grid.shape) == ("0.png", "male", (8, 8))
    assert grid[:4, :4].min() > 0.05
    assert (grid[5:] == 0).all()
    assert (grid[:, 5:] == 0).all()
    assert reason(client.post("/explain", files=files(b"a note", field="image"))) == (422, "not_an_image")
    assert reason(client.post("/explain", files=files(grey(1)))) == (422, "unknown_field")
    assert reason(client.post("/explain", files=files(grey(1), grey(2), field="image"))) == (422, "too_many_images")


def test_the_model_is_described(client: TestClient) -> None:
    found = client.get("/model").json()
    assert (found["network"], found["classes"]) == ("AlexNet", ["female", "male"])
    assert (found["version"], found["data_digest"], found["image_size"]) == ("0.1.0", "0123456789abcdef", SIZE)
    assert found["metrics"]["accuracy"] == 0.958
    assert [one["name"] for one in found["measured"]] == ["abroad", "test"]
    assert found["measured"][0]["recalls"] == {"female": 0.74}
    assert found["limits"].startswith("## Limits")
    assert found["accepts"] == {
        "max_bytes": 100_000, "max_images": 5, "max_pixels": 250_000, "min_side": 32, "crop": None,
            "formats": list(FORMATS)}  # fmt: skip
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("metrics", [None, "not JSON", "[1]", '{"accuracy": "high", "loss": NaN, "auc": {"a": 1}}'])
def test_a_model_file_that_says_little_of_itself_serves_all_the_same(tmp_path: Path, metrics: str | None) -> None:
    path = write_model(tmp_path / "model.onnx", {} if metrics is None else {"metrics": metrics})
    client = TestClient(build_app(Predictor(path), Settings()), base_url="http://localhost")
    found = client.get("/model").json()
    assert (found["version"], found["network"], found["limits"], found["metrics"]) == (None, None, "", {})
    assert client.post("/predict", files=files(grey(1))).status_code == 200


# Control characters are refused when the model is loaded.
ODD = '"\\\n</script><img src=x>{}'


def test_what_a_model_says_of_itself_comes_out_as_data(tmp_path: Path) -> None:
    metadata = dict.fromkeys(("version", "data_digest", "limits"), ODD)
    metadata["metrics"] = json.dumps({ODD: 0.5, "accuracy": 0.9, "large": 10**400})
    path = write_model(tmp_path / "model.onnx", metadata)
    client = TestClient(build_app(Predictor(path), Settings()), base_url="http://localhost")
    client.post("/predict", files=files(grey(1)))
    answer = client.get("/model")
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["version"], answer.json()["limits"]) == (ODD, ODD)
    assert client.get("/openapi.json").json()["info"]["version"] == ODD
    text = client.get("/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert {one.labels.get("path") for one in samples} <= {None, "/predict", "/model", "/openapi.json", "/metrics"}


def test_metrics_count(predictor: Predictor) -> None:
    client = TestClient(build_app(predictor, Settings()), base_url="http://localhost")
    client.post("/predict", files=files(grey(1), grey(2), b"a note"))
    client.post("/predict", files=files(b"a note"))
    client.get("/a-name-of-the-clients-choice")
    text = client.get("/metrics").text
    for line in (
        'gender_classifier_requests_total{path="/predict",status="200"} 1.0',
        'gender_classifier_requests_total{path="/predict",status="422"} 1.0',
        'gender_classifier_requests_total{path="other",status="404"} 1.0',
        'gender_classifier_errors_total{reason="not_an_image"} 2.0',
        "gender_classifier_images_total 2.0",
        "gender_classifier_batch_images_sum 2.0",
        'gender_classifier_request_seconds_count{path="/predict"} 2.0',
    ):
        assert f"\n{line}\n" in text
    assert "choice" not in text


# What it refuses


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"a note", "not_an_image"),
        (picture(0)[: len(picture(0)) // 2], "truncated"),
        (encode(np.zeros((501, 500), np.uint8), "PNG"), "too_large"),
    ],
)
def test_a_single_bad_picture_is_422(client: TestClient, data: bytes, expected: str) -> None:
    assert reason(client.post("/predict", files=files(data))) == (422, expected)


def test_requests_that_are_no_upload_of_pictures(client: TestClient) -> None:
    multipart = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    cases: list[tuple[dict[str, object], tuple[int, str]]] = [
        ({}, (415, "not_multipart")),
        ({"json": {"path": "/etc/passwd"}}, (415, "not_multipart")),
        ({"data": {"images": "x"}}, (415, "not_multipart")),
        ({"content": grey(1), "headers": {"content-type": "image/png"}}, (415, "not_multipart")),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, (415, "not_multipart")),
        ({"content": b"", "headers": multipart}, (400, "malformed")),
        ({"content": b"nonsense", "headers": multipart}, (400, "malformed")),
        ({"content": part + grey(1), "headers": multipart}, (400, "malformed")),
        ({"content": b"--b--\r\n", "headers": multipart}, (422, "no_images")),
        ({"content": b"--b\r\nX: " + b"y" * 9000 + b"\r\n\r\n", "headers": multipart}, (400, "malformed")),
        ({"files": [("images", ("a" * 5000, grey(1)))]}, (400, "malformed")),
        ({"content": b"--b\r\n\r\nx\r\n--b--\r\n", "headers": multipart}, (422, "unknown_field")),
        ({"files": files(grey(1), field="path")}, (422, "unknown_field")),
        ({"files": files(*[grey(1)] * 6)}, (422, "too_many_images")),
        ({"files": files(bytes(100_001))}, (413, "too_many_bytes")),
    ]
    for request, expected in cases:
        assert reason(client.post("/predict", **request)) == expected, request  # type: ignore[arg-type]
    assert reason(client.get("/predict")) == (405, "refused")
    assert reason(client.get("/page/../../etc/passwd")) == (404, "not_found")
    assert client.post("/predict", files=files(grey(1))).status_code == 200


def test_a_body_without_a_length_is_measured_while_it_arrives(client: TestClient) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        while len(sent) < 10_000:
            sent.append(1)
            yield bytes(10_000)

    answer = client.post("/predict", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert reason(answer) == (413, "too_many_bytes")


def test_without_the_key_nothing_is_predicted(predictor: Predictor) -> None:
    client = TestClient(build_app(predictor, Settings(api_key=KEY)), base_url="http://localhost")
    for wrong in ({}, {"authorization": KEY}, {"authorization": "Bearer "}, {"authorization": f"Bearer {KEY}x"},
                  {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer \xff"}):  # fmt: skip
        headers = {key: value.encode("latin-1") for key, value in wrong.items()}
        for path, field in (("/predict", "images"), ("/explain", "image")):
            answer = client.post(path, files=files(grey(1), field=field), headers=headers)
            assert reason(answer) == (401, "no_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert reason(client.get("/metrics", headers=headers)) == (401, "no_key")
    right = {"authorization": f"Bearer {KEY}"}
    assert client.post("/predict", files=files(grey(1)), headers=right).status_code == 200
    assert client.get("/metrics", headers=right).status_code == 200
    assert client.get("/model").json()["needs_key"] is True
    assert [client.get(path).status_code for path in ("/", "/health", "/docs", "/openapi.json")] == [200] * 4


def test_capacity_is_given_back() -> None:
    capacity = Capacity(2, 100)
    with capacity.hold_bytes() as hold, capacity.hold_bytes() as hold_more:
        hold(60)
        hold_more(40)
        with pytest.raises(RequestError, match="100 bytes of uploads are being worked on") as caught:
            hold(1)
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        with capacity.admit(), capacity.admit():
            with pytest.raises(RequestError, match="2 requests are being worked on"), capacity.admit():
                pass
            with pytest.raises(RequestError, match="2 requests are being worked on"):
                capacity.check_room()
        capacity.check_room()
    with capacity.hold_bytes() as hold, capacity.admit():
        hold(100)


def test_too_much_at_once_is_told_to_come_again(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    go, began = threading.Event(), threading.Event()

    def compute(images: np.ndarray) -> list[Answer]:
        began.set()
        assert go.wait(10)
        return predictor.compute(images)

    slow = Predictor.__new__(Predictor)
    slow.__dict__.update(predictor.__dict__)
    monkeypatch.setattr(slow, "compute", compute)

    async def scenario() -> None:
        transport = httpx.ASGITransport(build_app(slow, Settings(max_requests=2)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = [asyncio.create_task(client.post("/predict", files=files(grey(value)))) for value in (10, 240)]
            while not began.is_set():
                await asyncio.sleep(0.001)
            answer = await client.post("/predict", files=files(grey(1)))
            assert reason(answer) == (503, "busy")
            assert answer.headers["retry-after"] == "1"
            go.set()
            assert [one.json()[0]["label"] for one in await asyncio.gather(*first)] == ["female", "male"]
            assert (await client.post("/predict", files=files(grey(1)))).status_code == 200

    asyncio.run(scenario())


def test_a_body_that_never_ends_is_given_up(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_BODY_SECONDS", 0.1)

    async def trickle() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await asyncio.sleep(5)
        yield b"--b\r\n"

    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(predictor, Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {"content-type": "multipart/form-data; boundary=b"}
            return await client.post("/predict", content=trickle(), headers=headers)

    assert reason(asyncio.run(scenario())) == (408, "slow")


def test_a_defect_is_a_short_500(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Predictor.__new__(Predictor)
    broken.__dict__.update(predictor.__dict__)
    monkeypatch.setattr(broken, "compute", lambda _: 1 / 0)
    client = TestClient(build_app(broken, Settings()), base_url="http://localhost", raise_server_exceptions=False)
    answer = client.post("/predict", files=files(grey(1)))
    assert reason(answer) == (500, "internal")
    assert "ZeroDivision" not in answer.text


# What every answer carries


def test_every_answer_is_guarded(client: TestClient) -> None:
    answers = [client.get(path) for path in (*service_module.PAGE, "/model", "/no")]
    answers.append(client.post("/predict", files=files(grey(1))))
    for answer in answers:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_pages_name_no_other_host() -> None:
    pages = ROOT / "src" / "gender_classifier" / "serve" / "page"
    for path in pages.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.", text), path
        assert " style=" not in text, f"{path}: the content security policy forbids it"
        assert not re.search(r"\son[a-z]+=", text), path


def test_the_openapi_document_declares_what_is_answered(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/explain", "/model", "/health", "/metrics"}
    assert set(paths["/predict"]["post"]["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    body = paths["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["properties"]["images"]["maxItems"] == 5


def test_the_service_needs_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, gender_classifier.serve.app, gender_classifier.cli.serve;"
        "print([name for name in ('torch', 'mlflow', 'sklearn', 'matplotlib', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


# The command


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "tmp").mkdir()
    (folder / "key").write_text(f"{KEY}\n")
    (folder / "key").chmod(0o600)
    arguments = ("--api-key-file", "key", "--max-bytes", "8000000", "--max-images", "20")
    with served(model, folder, *arguments, TMPDIR=str(folder / "tmp")) as running:
        yield running


def connect(running: Served) -> httpx.Client:
    return httpx.Client(
        base_url=running.address, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
    )


def test_many_at_once_each_get_their_own_answer(running: Served) -> None:
    values = np.random.default_rng(3).integers(0, 256, 400).tolist()

    def ask(numbers: list[int]) -> list[tuple[int, float]]:
        with connect(running) as client:
            found = []
            for value in numbers:
                (one,) = client.post("/predict", files=files(grey(value))).json()
                found.append((value, one["probs"]["male"]))
            return found

    with ThreadPoolExecutor(16) as pool:
        found = [pair for part in pool.map(ask, [values[start::16] for start in range(16)]) for pair in part]
    assert len(found) == 400
    for value, prob in found:
        assert prob == pytest.approx(value / 255, abs=1e-5)
    with connect(running) as client:
        counts = dict(re.findall(r"gender_classifier_batch_images_(count|sum) (\S+)", client.get("/metrics").text))
    assert float(counts["sum"]) >= 400
    assert float(counts["count"]) < float(counts["sum"])  # some went together


def test_nothing_is_written_and_large_bodies_stay_in_memory(running: Served) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    data = encode(noise, "PNG")
    assert 5_000_000 < len(data) < 8_000_000
    before = {path: path.stat().st_mtime for path in running.folder.rglob("*") if path.name != "server.log"}
    with connect(running) as client:
        assert client.post("/predict", files=files(data)).status_code == 200
        assert reason(client.post("/predict", files=files(data, data))) == (413, "too_many_bytes")
        # Files that are open but have no name any more.
        links = [str(link.readlink()) for link in Path(f"/proc/{running.process.pid}/fd").iterdir()]
    assert not [link for link in links if link.startswith(str(running.folder / "tmp"))]
    assert {path: path.stat().st_mtime for path in running.folder.rglob("*") if path.name != "server.log"} == before


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_chunked_uploads(running: Served, size: int) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'

    def chunks() -> Iterator[bytes]:
        yield part + grey(240)
        for _ in range(size // 100_000):
            yield bytes(100_000)
        yield b"\r\n--b--\r\n"

    with connect(running) as client:
        answer = client.post("/predict", content=chunks(), headers={"content-type": "multipart/form-data; boundary=b"})
        if size > 8_000_000:
            assert reason(answer) == (413, "too_many_bytes")
        else:
            assert answer.json()[0]["label"] == "male"
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("length", "status"), [("999999999999", 413), ("-5", 400), ("abc", 400), ("9" * 400, 413), ("50", 400)]
)
def test_a_length_that_lies(running: Served, length: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as raw:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n"
        )
        raw.sendall(head.encode() + b"--b\r\n" + b"x" * 45)
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ") and b" 100 " not in line]
    assert [int(line.split()[1]) for line in lines] in ([status], [400])
    with connect(running) as client:
        assert client.get("/health").status_code == 200


def test_who_goes_away_in_the_middle_harms_nobody(running: Served) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", running.port)) as raw:
            raw.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
                        b"Content-Type: multipart/form-data; boundary=b\r\nAuthorization: Bearer "
                        + KEY.encode() + b"\r\n\r\n--b\r\n")  # fmt: skip
    with connect(running) as client:
        assert client.post("/predict", files=files(grey(1))).status_code == 200
    assert "Traceback" not in running.log


def test_a_key_of_the_file_is_asked_for(running: Served) -> None:
    assert httpx.post(f"{running.address}/predict", files=files(grey(1)), trust_env=False).status_code == 401


def test_sigterm_lets_what_runs_come_to_its_end(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path) as running:
        body = (
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + grey(240) + b"\r\n--b--\r\n"
        )
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:50])
        time.sleep(0.3)  # the request is under way
        running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # no new ones
            try:
                socket.create_connection(("127.0.0.1", running.port)).close()
                time.sleep(0.05)
            except ConnectionRefusedError:
                break
        connection.send(body[50:])
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())[0]["label"]) == (200, "male")
        assert running.process.wait(15) == 0
        assert "Traceback" not in running.log


def test_beyond_this_machine_it_warns_unless_a_key_is_asked_for(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path, "--host", "0.0.0.0") as running:
        assert "0.0.0.0: anyone who reaches this address can use it; set a key with --api-key-file" in running.log
    with served(model, tmp_path, "--host", "0.0.0.0", GENDER_CLASSIFIER_API_KEY=KEY) as running:
        assert "anyone" not in running.log
    with served(model, tmp_path) as running:
        assert "anyone" not in running.log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere.onnx"], r"nowhere\.onnx: no such file; give --model pretrained"),
        (["--api-key-file", "nowhere"], r"nowhere: cannot be read as the API key's file"),
        (["--api-key-file", "empty"], r"empty: holds no usable API key"),
        (["--api-key-file", "endless"], r"endless: holds no usable API key"),
        (["--api-key-file", "group"], r"group: other users can read this API key \(mode 0640\); run `chmod 600 group`"),
        (["--api-key-file", "world"], r"world: other users can read this API key \(mode 0604\); run `chmod 600 world`"),
        (["--api-key-file", "link"], r"link: other users can read this API key \(mode 0604\); run `chmod 600 link`"),
        (["--host", "256.0.0.1"], r"256\.0\.0\.1:0: cannot listen there \(.+\); change --host or --port"),
        (["--port", "{taken}"], r"127\.0\.0\.1:\d+: cannot listen there \(Address already in use\)"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\nkey\n")
    Path("empty").chmod(0o600)
    for name, mode in (("group", 0o640), ("world", 0o604), ("endless", 0o600)):
        Path(name).write_text("a" * 5000 if name == "endless" else KEY)
        Path(name).chmod(mode)
    Path("link").symlink_to("world")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        given = [one.format(taken=taken) for one in arguments]
        monkeypatch.setattr(
            "gender_classifier.serve.connections.Server.run", lambda *_, **__: pytest.fail("it started")
        )
        assert main(["serve", "--model", str(model), "--port", "0", *given]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(rf"gender-classifier serve: error: {message}.*\n", error), error


def test_a_key_that_another_user_keeps_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenSSH does: a container's secret belongs to root, and its mode is not this user's to change."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o644)
    monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)
    assert read_key(path) == KEY


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--max-bytes", "0"], ["--threshold", "2"], ["--max-images", "x"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "gender_classifier.cli.listening", raising=False)  # imported by earlier tests
    assert main(["serve"]) == 1
    assert (
        "uvicorn is not installed; install the extra `serve`: in the checkout, `pip install -e '.[serve]'`"
        in capsys.readouterr().err
    )


def test_animated_and_rotated_pictures_come_upright_from_the_first_frame(client: TestClient, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), (value,) * 3) for value in (250, 0, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, 20:] = 255  # upper right; turned a quarter to the left, upper left
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = encode(pixels, "PNG", exif=exif)
    found = client.post(
        "/predict", files=files((tmp_path / "a.gif").read_bytes(), turned, encode(pixels, "PNG"))
    ).json()
    assert [one["label"] for one in found] == ["male", "male", "female"]
