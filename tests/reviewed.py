"""A small data set with suspects, and its review as a process of its own."""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from checkout import ROOT
from servers import answers, serving

from gender_classifier.common.paths import Layout
from gender_classifier.common.spreadsheet import write_table
from gender_classifier.data.archive import write_archive
from gender_classifier.data.corrections import Correction, read_corrections, write_corrections
from gender_classifier.data.dataset import DatasetInfo, write_info
from gender_classifier.data.raw_table import RawRow, write_raw_table


def write_data(
    folder: Path, images: Mapping[str, bytes], classes: Sequence[str] = ("female", "male")
) -> tuple[Layout, list[str]]:
    """Write a checkout in which every image is a suspect, in the order given, and unfamiliar, in the opposite order.

    The label of image N is class N, and the class after it is suggested.

    Returns:
        The paths, and the SHA-256 of each image.
    """
    layout = Layout(folder)
    (folder / "dvc.yaml").touch()
    labels = {name: classes[place % len(classes)] for place, name in enumerate(images)}
    write_archive(layout.raw_archive_path, sorted(images.items()))
    write_raw_table(layout.raw_table_path, (), (RawRow(name, labels[name], "test") for name in sorted(images)))
    write_info(layout.dataset_path, DatasetInfo(tuple(classes), 64, (0.5,) * 3, (0.2,) * 3, "0" * 64, {}))
    write_corrections(layout.corrections_path, [])
    rows = [
        ("test", name, label, classes[(classes.index(label) + 1) % len(classes)], f"{place / len(images):.6f}")
        for place, (name, label) in enumerate(labels.items())
    ]
    write_table(layout.suspects_path, ["split", "member", "label", "suggested", "prob_label"], rows)
    strangers = [(split, name, label, f"{1 + float(share):.4f}") for split, name, label, _, share in reversed(rows)]
    write_table(layout.strangers_path, ["split", "member", "label", "times_threshold"], strangers)
    return layout, [hashlib.sha256(data).hexdigest() for data in images.values()]


@dataclass(frozen=True)
class Reviewed:
    """A running review: ``url`` with the token, ``address`` without."""

    layout: Layout
    url: str

    @property
    def address(self) -> str:
        return self.url.partition("/#")[0]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.url.partition('/#')[2]}"}

    @property
    def decisions(self) -> dict[str, Correction]:
        return read_corrections(self.layout.corrections_path)

    @property
    def labels(self) -> dict[str, str]:
        """Path to the label decided for it."""
        return {found.path: found.label_after for found in self.decisions.values()}


@contextmanager
def reviewed(layout: Layout, *options: str) -> Iterator[Reviewed]:
    """Run `gender-classifier review` in a checkout until the block ends; it is killed, as by a closed terminal."""
    log = layout.root / "server.log"
    log.unlink(missing_ok=True)

    def find_url() -> str | None:
        found = re.search(r"http://127\.0\.0\.1:\d+/#[\w-]+", log.read_text())
        return found[0] if found else None

    command = [sys.executable, "-m", "gender_classifier", "review", "--port", "0", *options]
    variables = {"PYTHONPATH": str(ROOT / "src")}
    with serving(command, layout.root, lambda: answers(find_url() or "http://127.0.0.1:1/"), **variables):
        url = find_url()
        assert url is not None
        yield Reviewed(layout, url)
