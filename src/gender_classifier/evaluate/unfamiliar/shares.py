"""How often images count as unfamiliar: those of test and of further sets, and images without a face."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.artifacts import Table, tabulate
from gender_classifier.data.dataset import PackedSplit
from gender_classifier.evaluate.markdown import build_table
from gender_classifier.evaluate.unfamiliar.nonfaces import draw_nonfaces
from gender_classifier.metrics.scores import wilson_interval

SHARE, NONFACES_SHARE = "unfamiliar_share", "nonfaces_unfamiliar_share"
"""Metrics of a set of images, and of all those without a face."""


@dataclass(frozen=True)
class Scorer:
    """Maps uint8 (N, S, S, 3) by ``score`` to the unfamiliarity float32 (N,); above ``threshold``, unfamiliar.

    ``score`` may be given ``on_batch``, which it tells the number of images after each batch.
    """

    score: Callable[..., NDArray[np.float32]]
    threshold: float

    def flag(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of uint8 (N, S, S, 3) are unfamiliar, bool (N,)."""
        return self.score(images) > self.threshold


@dataclass(frozen=True)
class UnfamiliarRow:
    """The ``share`` of ``n`` images that is unfamiliar, with its 95 % interval."""

    set: str
    n: int
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class Unfamiliar:
    """The unfamiliarity of ``test`` and ``val``, float32 (N,) each, its threshold, and the rows of all sets."""

    test: NDArray[np.float32]
    val: NDArray[np.float32]
    threshold: float
    rows: list[UnfamiliarRow]

    @property
    def metrics(self) -> dict[str, float]:
        """Return the shares of test and of all images without a face."""
        test, *others = self.rows
        total = sum(row.n for row in others)
        return {SHARE: test.share, NONFACES_SHARE: sum(row.share * row.n for row in others) / total}


def measure_unfamiliar(scorer: Scorer, test: PackedSplit, val: PackedSplit) -> Unfamiliar:
    """Score test, val and images without a face."""
    scores = {"test": scorer.score(test.images), "val": scorer.score(val.images)}
    nonfaces = draw_nonfaces(test.images.shape[1])
    rows = [count_unfamiliar("test", scores["test"] > scorer.threshold)]
    rows += [count_unfamiliar(f"no faces: {name}", scorer.flag(images)) for name, images in nonfaces.items()]
    return Unfamiliar(scores["test"], scores["val"], scorer.threshold, rows)


def count_unfamiliar(name: str, flags: NDArray[np.bool_]) -> UnfamiliarRow:
    """Return the row of a set from bool (N,)."""
    hits, total = int(flags.sum()), len(flags)
    return UnfamiliarRow(name, total, hits / total, *wilson_interval(hits, total))


def list_rows(found: Unfamiliar | None, extra: Mapping[str, UnfamiliarRow]) -> list[UnfamiliarRow]:
    """Return the rows of test, of the further sets, and of images without a face; none if the model cannot tell."""
    return [] if found is None else [found.rows[0], *extra.values(), *found.rows[1:]]


def tabulate_unfamiliar(rows: Sequence[UnfamiliarRow]) -> Table:
    """Return the table for a file."""
    return tabulate(UnfamiliarRow, rows)


def describe_unfamiliar(rows: Sequence[UnfamiliarRow]) -> str:
    """Return the table for the model card, as Markdown; an empty text without rows."""
    return build_table(["set", "images", "unfamiliar", "95 % interval"], list(_list_cells(rows))) if rows else ""


def _list_cells(rows: Sequence[UnfamiliarRow]) -> Iterator[list[str]]:
    for row in rows:
        interval = f"{row.share_low:.1%} to {row.share_high:.1%}"
        yield [row.set, f"{row.n:,}", f"{row.share:.1%}", interval]
