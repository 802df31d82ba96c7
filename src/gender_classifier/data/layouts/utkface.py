"""UTKFace: age, gender and race in each file's name, ``25_1_3_20170109142408075.jpg.chip.jpg``.

https://susanqq.github.io/UTKFace/: ``[age]_[gender]_[race]_[date&time].jpg``. A few published names lack the race, have
a blank before the dot, or no dot before ``jpg``.
"""

import re
from collections.abc import Sequence

from gender_classifier.data.file_names import list_first, may_be_image
from gender_classifier.data.layouts.entry import Entry, Found
from gender_classifier.errors import SourceError

_NAME = re.compile(r"(\d{1,3})_([01])_(?:([0-4])_)?(\d{14,20})\s*\.?(?:jpg|jpeg|png)(?:\s*\.chip\.jpg)?", re.IGNORECASE)
_GENDERS = ("male", "female")
_RACES = ("White", "Black", "Asian", "Indian", "Other")
# The ranges of FairFace, so that reports on both sets compare; the last one is "more than 70" there.
_LAST_AGES = (2, 9, 19, 29, 39, 49, 59, 69)
_GROUPS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")

ATTRIBUTES = ("age", "age_group", "race")


def fits(names: Sequence[str]) -> bool:
    """Return True if nearly all images have such names: a hundredth may be odd, at least one."""
    images = [name for name in names if may_be_image(name)]
    odd = sum(_match(name) is None for name in images)
    return len(images) > 1 and odd < len(images) and odd <= max(1, len(images) // 100)


def find(names: Sequence[str], where: str) -> Found:
    """Return the images, labelled by their names.

    Raises:
        SourceError: an image has another name.
    """
    entries, odd = list[Entry](), list[str]()
    for name in filter(may_be_image, names):
        match = _match(name)
        if match is None:
            odd.append(name)
            continue
        age, gender, race, _ = match.groups()
        group = _GROUPS[sum(int(age) > last for last in _LAST_AGES)]
        entries.append(
            Entry(name, name, _GENDERS[int(gender)], attributes=(age, group, _RACES[int(race)] if race else ""))
        )
    if odd:
        raise SourceError(
            f"{where}: {len(odd):,} of its images are not named age_gender_race_time.jpg: {list_first(odd)}; "
            "rename or remove them, or set ingest.format to folders"
        )
    return Found("UTKFace", entries, ATTRIBUTES)


def _match(name: str) -> re.Match[str] | None:
    return _NAME.fullmatch(name.rpartition("/")[2])
