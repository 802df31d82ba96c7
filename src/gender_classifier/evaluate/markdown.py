"""Foreign text in Markdown: names and params are shown literally, never as markup, HTML, link or image."""

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


def build_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1) -> str:
    """Return an aligned table in a block of code: MLflow draws Markdown's own without any space between columns.

    Args:
        header: names of the columns.
        rows: cells, shown as they are.
        text: how many columns from the left are text; the others are numbers, to the right.
    """
    table = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if place < text else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in table)
    ]
    # No cell can end the block: a line of nothing but backticks would.
    return "\n".join(["```text", *(line.rstrip().replace("`" * 3, "'" * 3) for line in lines), "```"])
