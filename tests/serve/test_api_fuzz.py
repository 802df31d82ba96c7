"""Whatever is sent, the service answers as its OpenAPI document says, and never with a defect."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import schemathesis
from conftest import encode, picture
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema
from served import grey, write_model

from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.app import Settings, build_app

REASONS = {"too_small", "empty", "not_an_image", "truncated", "too_large", "unreadable"}
PICTURES = [grey(90), *(encode(np.zeros((30, 20, 3), np.uint8), format) for format in ("JPEG", "WEBP", "GIF", "TIFF"))]

schemathesis.openapi.format("binary", st.one_of(st.sampled_from(PICTURES), st.binary(max_size=200)))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], FastAPI]:
    predictor = Predictor(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)
    limits = Settings(max_bytes=200_000, max_images=8, max_pixels=300_000, allowed_hosts=("testserver",))
    return lambda: build_app(predictor, limits)


@pytest.fixture(scope="module")
def api(build: Callable[[], FastAPI]) -> OpenApiSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", build())


@pytest.fixture(scope="module")
def client(build: Callable[[], FastAPI]) -> Iterator[TestClient]:
    with TestClient(build(), base_url="http://localhost") as client:
        yield client


ENDPOINTS = ["GET /health", "GET /metrics", "GET /model", "POST /explain", "POST /predict"]
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("operation", "mode"),
    [*((one, POSITIVE) for one in ENDPOINTS), *((one, NEGATIVE) for one in ENDPOINTS if one.startswith("POST"))],
)
def test_the_service_keeps_to_its_document(api: OpenApiSchema, operation: str, mode: GenerationMode) -> None:
    method, path = operation.split()
    tried = 0

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        nonlocal tried
        # An empty list is no part of a multipart body: what is sent would be right without it.
        assume(not isinstance(case.body, dict) or [] not in case.body.values())
        tried += 1
        # Bytes that are no image fit the document, and are refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()
    assert tried


def test_every_endpoint_is_tried(api: OpenApiSchema) -> None:
    assert sorted(one.ok().label for one in api.get_all_operations()) == ENDPOINTS


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flip, double, or fill in a part of a file."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        start = int(rng.integers(0, len(changed) or 1))
        length = int(rng.integers(1, 40))
        kind = rng.integers(0, 5)
        if kind == 0:
            del changed[start:]
        elif kind == 1 and changed:
            changed[start % len(changed)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            changed[start : start + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif kind == 3:
            changed[start:start] = changed[start : start + length]
        else:
            changed[start : start + 4] = b"\xff\xff\xff\xff"
    return bytes(changed)


def test_mutated_pictures_are_answered_or_refused(client: TestClient) -> None:
    rng = np.random.default_rng(11)
    sources = [picture(seed) for seed in range(5)] + [*PICTURES, encode(np.zeros((30, 20), np.uint16), "PNG")]
    refused = answered = 0
    for number in range(400):
        data = [mutate(sources[int(rng.integers(len(sources)))], rng) for _ in range(1 if number % 2 else 4)]
        path, field = ("/explain", "image") if number % 20 == 1 else ("/predict", "images")
        answer = client.post(path, files=[(field, (f"{n}.jpg", one, "image/jpeg")) for n, one in enumerate(data)])
        assert answer.status_code in (200, 422), answer.text
        found = answer.json()
        entries = found if isinstance(found, list) else [found]
        assert len(entries) == len(data)
        for entry in entries:
            if "error" in entry:
                assert entry["error"]["reason"] in REASONS
                refused += 1
            else:
                assert entry["label"] in ("female", "male")
                answered += 1
    assert refused > 100
    assert answered > 100


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([
                b"--b\r\n", b"\r\n--b\r\n", b"--b--\r\n", b"\r\n", b"\r\n\r\n", b"\r\n--b--", grey(3),
                b'Content-Disposition: form-data; name="images"; filename="a"', b"Content-Type: image/png",
                b'Content-Disposition: form-data; name="', b"Content-Transfer-Encoding: base64",
                b'Content-Disposition: form-data; name="images"; filename*=UTF-8\'\'%ff',
            ]),
        ),
        max_size=12,
    ),
    kind=st.sampled_from([
        "multipart/form-data; boundary=b", 'multipart/form-data; boundary="b"', "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff", "multipart/mixed; boundary=b", ";", "multipart/form-data; boundary",
    ]),
)  # fmt: skip
def test_bodies_out_of_the_parts_of_bodies(parts: list[bytes], kind: str) -> None:
    answer = _client().post("/predict", content=b"".join(parts), headers={"content-type": kind.encode("latin-1")})
    assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/json"


_CLIENT: list[TestClient] = []


@pytest.fixture(autouse=True, scope="module")
def _lend_client(client: TestClient) -> Iterator[None]:
    """Hypothesis runs one test function many times, with module-wide fixtures at most."""
    _CLIENT.append(client)
    yield
    _CLIENT.clear()


def _client() -> TestClient:
    return _CLIENT[0]
