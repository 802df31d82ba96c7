"""Groups of images that belong on one side of a split: of one person, or copies of one another."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gender_classifier.data.manifest import Record


def connect(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of the connected component of each of ``count`` nodes, given their edges."""
    if not pairs:
        return list(range(count))
    first, second = zip(*pairs, strict=True)
    graph = coo_array((np.ones(len(pairs), np.bool_), (first, second)), shape=(count, count))
    components: list[int] = connected_components(graph, directed=False)[1].tolist()
    return components


def name_groups(records: Sequence[Record]) -> list[str]:
    """Return the name of each record's group; an empty text for an image in none.

    A group is a connected component of images of one person and of duplicates. It is named ``person P``, by the first
    of its persons, which stays the same when images are added, or ``group N``, by the number of its duplicates.
    """
    pairs = [
        pair
        for key in ([record.group for record in records], [record.duplicate_group for record in records])
        for pair in _chain(key)
    ]
    people, copies = defaultdict[int, set[str]](set), dict[int, str]()
    components = connect(len(records), pairs)
    for component, record in zip(components, records, strict=True):
        if record.group:
            people[component].add(record.group)
        if record.duplicate_group:
            copies[component] = f"group {record.duplicate_group}"
    names = copies | {component: f"person {min(found)}" for component, found in people.items()}
    return [names.get(component, "") for component in components]


def number_groups(names: Sequence[str]) -> list[int]:
    """Return a number per image: equal for images of one group, unique for those in none.

    Args:
        names: of :func:`name_groups`.
    """
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name or f"row {row}", row) for row, name in enumerate(names)]


def _chain(keys: Iterable[str]) -> Iterable[tuple[int, int]]:
    """Yield edges that connect the places with equal keys; an empty key connects nothing."""
    last: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key:
            if key in last:
                yield last[key], place
            last[key] = place
