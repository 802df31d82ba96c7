"""Foreign text in Markdown: names and params are shown literally, never as markup, HTML, link or image."""

import re
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined

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


def render_template(package: str, name: str, **values: object) -> str:
    """Render a Markdown template of ``package``, which has the filter ``text`` and the function ``table``.

    Args:
        package: dotted name of the package that holds the template.
        name: of its file.
        values: that the template uses; one that is missing raises ``jinja2.UndefinedError``.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701  no HTML
    environment.filters["text"] = escape_markdown
    environment.globals["table"] = build_table
    source = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)
