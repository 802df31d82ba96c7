"""Output in any encoding: escapes, never an error after the work is done."""

import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gender_classifier.common.terminal import BYTES_OR_ESCAPES, make_output_safe, printable

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)  # surrogates too
ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8", "shift_jis", "utf-16-le")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_standard_output_escapes_what_its_encoding_lacks(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    make_output_safe()
    for stream in streams:
        print("a \u5973 \udce9 b", file=stream, flush=True)
        shown = stream.buffer.getvalue().decode(encoding)
        assert shown.startswith("a ")
        assert "\\udce9 b" in shown
        assert ("\u5973" in shown) != ("\\u5973" in shown)


def test_streams_that_cannot_be_reconfigured_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    for stream in (io.StringIO(), closed):
        monkeypatch.setattr(sys, "stdout", stream)
        make_output_safe()
        assert sys.stdout is stream


def test_a_stream_that_the_caller_has_closed_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    make_output_safe()
    with sys.stdout:
        print("\U0001f600 \udcff")


@settings(deadline=None)
@given(ANY_TEXT)
def test_printable_text_is_one_line_of_visible_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@settings(deadline=None)
@given(ANY_TEXT, st.sampled_from(ENCODINGS[:5]))
def test_any_text_can_be_encoded(text: str, encoding: str) -> None:
    text.encode(encoding, BYTES_OR_ESCAPES)


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    assert name.encode("utf-8", BYTES_OR_ESCAPES) == b"caf\xe9.jpg"
    assert "caf\u00e9 \u5973".encode("ascii", BYTES_OR_ESCAPES) == rb"caf\xe9 \u5973"
    assert "\ud800".encode("utf-8", BYTES_OR_ESCAPES) == rb"\ud800"
