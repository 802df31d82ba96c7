"""Find groups of exact and near duplicates."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from gender_classifier.data.groups import connect, name_groups
from gender_classifier.data.manifest import Record
from gender_classifier.verify.params import VerifyParams

HASH_BITS = 256

Groups = list[list[str]]
"""Groups of two or more members, sorted, in order of their first members."""


def group_exact(judged: dict[str, Record]) -> Groups:
    """Group usable images with the same SHA-256."""
    by_content: dict[str, list[str]] = defaultdict(list)
    for member, record in judged.items():
        if record.status == "ok":
            by_content[record.sha256].append(member)
    return sorted(group for group in by_content.values() if len(group) > 1)


def merge_near(exact: Groups, judged: dict[str, Record], policy: VerifyParams) -> Groups:
    """Group exact copies together with images whose hashes differ in at most ``near_duplicate_distance`` bits."""
    members = [member for member, record in judged.items() if record.status == "ok"]
    row = {member: number for number, member in enumerate(members)}
    pairs = [(row[group[0]], row[other]) for group in exact for other in group[1:]]
    pairs += find_near_pairs([judged[member].phash for member in members], policy.near_duplicate_distance)
    groups: dict[int, list[str]] = defaultdict(list)
    for member, component in zip(members, connect(len(members), pairs), strict=True):
        groups[component].append(member)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def group_people(judged: dict[str, Record]) -> Groups:
    """Group the images of each person, together with those of others who share a duplicate with them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for member, name in zip(judged, name_groups(list(judged.values())), strict=True):
        if name.startswith("person "):
            groups[name].append(member)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def find_near_pairs(hashes: Sequence[str], distance: int, *, block: int = 512) -> Iterator[tuple[int, int]]:
    """Yield the pairs (i, j), i < j, whose hashes differ in at most ``distance`` bits.

    All pairs are compared: with bits as +-1, a scalar product is 256 minus twice the distance. Hashes with less than a
    quarter of their bits set come from flat images, match by chance, and are left out.

    Args:
        hashes: 64 hex digits each.
        distance: of 256 bits.
        block: rows at a time; small enough for a block of products to fit the processor's cache.
    """
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8)
    bits = np.unpackbits(packed.reshape(len(hashes), HASH_BITS // 8), axis=1)
    telling = np.flatnonzero(bits.sum(axis=1) >= HASH_BITS // 4)
    signs = bits[telling].astype(np.float32) * 2 - 1
    least = HASH_BITS - 2 * distance
    for start in range(0, len(signs), block):
        for other in range(start, len(signs), 4 * block):
            products = signs[start : start + block] @ signs[other : other + 4 * block].T
            if products.max() < least:
                continue
            rows, columns = np.nonzero(products >= least)
            pairs = zip(telling[start + rows].tolist(), telling[other + columns].tolist(), strict=True)
            yield from ((first, second) for first, second in pairs if first < second)
