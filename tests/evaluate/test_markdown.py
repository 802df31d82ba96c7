"""Text of others is text in Markdown, whatever it holds."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.evaluate.markdown import build_table, code_span, escape_markdown

NASTY = [
    "a|b", "a\\|b", "`", "``x``", "<img src=x onerror=alert(1)>", "![x](http://evil/x.png)", "[x](javascript:1)",
    "a\nb", "# x", "https://evil.example", "www.evil.example", "&lt;script&gt;", "*b* _i_ ~s~", "\x1b[31m", "\u202eabc", " x ",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("show", [escape_markdown, code_span])
def test_nothing_is_markup(show: object, text: str) -> None:
    shown = show(text)  # type: ignore[operator]
    inside = shown[1:-1] if shown.startswith("`") else shown.removeprefix("<code>").removesuffix("</code>")
    assert shown.isprintable()
    assert not set("|`<>\\[") & set(inside)
    if not shown.startswith("`"):  # where Markdown still looks for markup
        assert not set("*~!#_:") & set(re.sub(r"&#\d+;", "", inside))
        assert "www." not in shown


@pytest.mark.parametrize("text", [*NASTY, "```", "a\n```\n<b>"])
def test_no_cell_ends_a_table(text: str) -> None:
    lines = build_table(["name", "n"], [[text, "1"], ["x", "20"]]).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("```text", "```", 5)
    assert "```" not in "".join(lines[1:-1])
    assert lines[2].endswith("  1")
    assert lines[3].endswith(" 20")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1))
def test_what_is_shown_is_the_text(text: str) -> None:
    assert unescape(escape_markdown(text)) == text
    code = code_span(text)
    assert (code[1:-1] if code.startswith("`") else unescape(code[6:-7])) == text


def test_plain_names_stay_readable() -> None:
    assert escape_markdown("female") == "female"
    assert code_span("train.weight_decay") == "`train.weight_decay`"
