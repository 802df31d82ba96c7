"""Text of others in Markdown: names and params are shown as they are, and are no markup, HTML, link or image."""

import re
from collections.abc import Sequence

from gender_classifier.common.terminal import printable

_SPECIAL = re.compile(r"[^\w \-.,;()/%+=]|_|(?<=www)\.", re.IGNORECASE | re.ASCII)
_PLAIN_CODE = re.compile(r"(?! )[^`|\\<>&\[]+(?<! )")


def escape_markdown(text: str) -> str:
    """Return ``text`` so that Markdown shows it literally, in one line, in a table too."""
    return _SPECIAL.sub(lambda match: match[0] if ord(match[0]) > 127 else f"&#{ord(match[0])};", printable(text))


def code_span(text: str) -> str:
    """Return ``text`` as code: between backticks, or as HTML where it holds what ends them or a table's cell."""
    text = printable(text)
    return f"`{text}`" if _PLAIN_CODE.fullmatch(text) else f"<code>{escape_markdown(text)}</code>"


def build_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown, made by the functions above where they hold text of others."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))
