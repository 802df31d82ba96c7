"""Types and checks of ``params.yaml``, built on pydantic: strict types, bounds, no unknown keys."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le
from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from gender_classifier.errors import ParamsError

Section = TypeVar("Section")

TOP_LEVEL = "top level"
"""Marks a key that is at the top of the file instead of in its section, for ``dvc exp run -S epochs=20``."""

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _to_text(value: object) -> object:
    # `source: 2024` is text, although YAML reads a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_number(value: object) -> object:
    # DVC writes 1e-05, which PyYAML reads as text.
    return float(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else value


Text = Annotated[str, Strict(), BeforeValidator(_to_text), Field(pattern=r"\S")]
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict(), BeforeValidator(_to_number), AllowInfNan(False)]
Switch = Annotated[bool, Strict()]
Count = Annotated[Whole, Ge(0)]
Positive = Annotated[Whole, Ge(1)]
Fraction = Annotated[Real, Interval(ge=0, le=1)]
Name = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}\z")]


class Renamed(dict[str, str]):
    """Annotates a choice: values of earlier versions, and what to write instead."""


@dataclass_transform(frozen_default=True)
def section(cls: type[Section]) -> type[Section]:
    """Turn ``cls`` into a frozen dataclass that checks its values and refuses unknown keys."""
    checked: type[Section] = dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)  # type: ignore[assignment]
    return checked


def build(kind: type[Section], raw: Mapping[str, Any], origin: Path) -> Section:
    """Build a section of sections from the content of a YAML file.

    Args:
        kind: a :func:`section` whose fields are sections.
        raw: the file's content.
        origin: the file, for messages.

    Raises:
        ParamsError: a key is unknown, missing, of the wrong type or out of range; names the key and its value.
    """
    kinds = get_type_hints(kind)
    top = {key: name for name, subsection in kinds.items() for key in _list_top_level(subsection)}
    _refuse_unknown([str(key) for key in raw], [*top, *kinds], origin, "")
    tree = {name: value for name, value in raw.items() if name in kinds and value is not None}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            known = [key for key in get_type_hints(kinds[name]) if top.get(key) != name]
            _refuse_unknown([str(key) for key in value], known, origin, f"{name}.")
            tree[name] = {**value, **{key: raw[key] for key, owner in top.items() if owner == name and key in raw}}
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = min(details, key=lambda detail: detail["type"] != "unexpected_keyword_argument")
        raise ParamsError(f"{origin}: {_describe(first, kind, top)}") from None


def _list_top_level(kind: type[Any]) -> list[str]:
    """Return the keys of a section that are at the top of the file."""
    return [name for name, hint in get_type_hints(kind, include_extras=True).items() if TOP_LEVEL in get_args(hint)]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name, as ``section.key``, and value of every key below a section."""
    top = _list_top_level(type(value)) if is_dataclass(value) else ()
    entries = {item.name: getattr(value, item.name) for item in fields(value)} if is_dataclass(value) else value
    for key, child in entries.items():
        if is_dataclass(child) or isinstance(child, Mapping):
            yield from flatten(child, f"{prefix}{key}.")
        else:
            yield key if key in top else f"{prefix}{key}", child


def _describe(error: ErrorDetails, kind: type[Any], top: Mapping[str, str]) -> str:
    place = [str(part) for part in error["loc"]]
    if place[-1] == "[key]":
        return (
            f"`{'.'.join(place[:-2])}` has the name {_show(error['loc'][-2])}; a name is up to 40 letters, digits, _ "
            "and -, the first a letter or digit"
        )
    key = place[-1] if top.get(place[-1]) == place[0] else ".".join(place)
    if error["type"] == "unexpected_keyword_argument":
        parent, _ = _find_hint(kind, place[:-1])
        return f"unknown key `{key}`{_suggest(place[-1], list(get_type_hints(parent)), key[: -len(place[-1])])}"
    if error["type"] == "missing":
        return f"{'section' if len(place) == 1 else 'key'} `{key}` is missing; add it (see the version in Git)"
    why = f"; {error['ctx']['error']}" if error["type"] == "value_error" else _explain(error, *_find_hint(kind, place))
    return f"`{key}` is {_show(error['input'])}{why}"


def _explain(error: ErrorDetails, hint: Any, annotations: tuple[Any, ...]) -> str:
    if is_dataclass(hint):
        return ", not a section of keys; give it an indented block"
    if get_origin(hint) is Mapping:
        return ", not names with their texts; write {} for none"
    if get_origin(hint) is Literal:
        choices, given = [str(choice) for choice in get_args(hint)], str(error["input"])
        new = next((one[given] for one in annotations if isinstance(one, Renamed) and given in one), None)
        if new is not None:
            return f", a value of an earlier version; write {new}"
        return f"; choose one of {', '.join(choices)}{_suggest(given, choices)}"
    bounds = _bound(annotations)
    if error["type"] in ("greater_than", "greater_than_equal", "less_than_equal", "finite_number"):
        return f", out of range; it must be {bounds or 'finite'}"
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "text")
    return f"; it must be {wanted}{f', {bounds}' if bounds else ''}"


def _find_hint(kind: Any, place: list[str]) -> tuple[Any, tuple[Any, ...]]:
    """Return the plain type at ``place`` and its annotations."""
    hint: Any = kind
    for part in place:
        hint = get_type_hints(hint, include_extras=True)[part] if is_dataclass(hint) else get_args(hint)[1]
        if part is not place[-1] and hasattr(hint, "__metadata__"):
            hint = get_args(hint)[0]
    return (get_args(hint)[0], get_args(hint)[1:]) if hasattr(hint, "__metadata__") else (hint, ())


def _bound(annotations: tuple[Any, ...]) -> str:
    parts = []
    for bound in (inner for item in annotations for inner in (item if isinstance(item, Interval) else [item])):
        if isinstance(bound, Gt):
            parts.append(f"above {bound.gt:g}")
        elif isinstance(bound, Ge):
            parts.append(f"at least {bound.ge:g}")
        elif isinstance(bound, Le):
            parts.append(f"at most {bound.le:g}")
    return " and ".join(parts)


def _refuse_unknown(given: list[str], known: list[str], origin: Path, prefix: str) -> None:
    for key in given:
        if key not in known:
            raise ParamsError(f"{origin}: unknown key `{prefix}{key}`{_suggest(key, known, prefix)}")


def _suggest(word: str, known: list[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{prefix}{close[0]}`?" if close else f"; known here: {', '.join(known)}"


def _show(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if value is not None else "empty"
