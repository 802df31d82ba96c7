"""A review: decisions, each on disk before it is answered, and their undoing."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from PIL import Image

from gender_classifier.data.archive import Archive
from gender_classifier.data.corrections import Correction, edit_corrections, now, read_corrections
from gender_classifier.data.images import decode, to_rgb
from gender_classifier.errors import DataError
from gender_classifier.serve.review.suspects import Suspect

_SIDE = 1024  # px; larger images are shown smaller


class Review:
    """The suspects of one data set, and what was decided about them since the review began.

    Several pages may use it at once, and other processes may edit the file: each decision reads the file again, and
    replaces none that was made elsewhere.
    """

    def __init__(self, suspects: Sequence[Suspect], classes: Sequence[str], archive: Archive, path: Path) -> None:
        """Review ``suspects``.

        Args:
            suspects: the likeliest first.
            classes: names in label order.
            archive: holds the images.
            path: of ``data/corrections.csv``.
        """
        self.classes = tuple(classes)
        self._suspects = {suspect.sha256: suspect for suspect in suspects}
        self._archive, self._path = archive, path
        self._made: dict[str, Correction] = {}  # by SHA-256, the oldest first
        self._lock = Lock()

    def find(self, sha256: str) -> Suspect | None:
        """Return the suspect with that SHA-256, or None."""
        return self._suspects.get(sha256)

    def list_open(self) -> list[Suspect]:
        """Return the suspects about which nobody has decided, the likeliest first."""
        corrections = read_corrections(self._path)
        return [suspect for sha256, suspect in self._suspects.items() if sha256 not in corrections]

    def list_decided(self) -> list[tuple[Suspect, str]]:
        """Return suspect and label of each decision of this review that the file still holds, the oldest first."""
        corrections = read_corrections(self._path)
        return [
            (self._suspects[sha256], made.label_after)
            for sha256, made in list(self._made.items())
            if corrections.get(sha256) == made
        ]

    def decide(self, suspect: Suspect, label: str) -> int:
        """Write that the right label is ``label``, an empty text to leave the image out.

        Returns:
            The number of suspects about which nobody has decided.

        Raises:
            DataError: ``label`` is no class, the image was decided elsewhere, or the file is damaged.
            LockError: the file cannot be locked.
            OSError: it cannot be written.
        """
        if label not in (*self.classes, ""):
            raise DataError(f"{label!r} is no class of this data set; reload the page")
        made = Correction(suspect.sha256, suspect.path, suspect.label, label, now())
        with self._lock:
            with edit_corrections(self._path) as corrections:
                found = corrections.setdefault(suspect.sha256, made)
                earlier = self._made.get(suspect.sha256)
                # A request is sent again if its answer was lost.
                if found is not made and (found != earlier or found.label_after != label):
                    raise DataError(
                        f"{suspect.path}: was decided elsewhere meanwhile ({found.describe()}); edit {self._path} to "
                        "change that"
                    )
            self._made.pop(suspect.sha256, None)
            self._made[suspect.sha256] = found
        return self._count_left(corrections)

    def undo(self, suspect: Suspect) -> int:
        """Remove this review's decision about an image.

        Returns:
            The number of suspects about which nobody has decided.

        Raises:
            DataError: this review has no decision about the image, someone else has, or the file is damaged.
            LockError: the file cannot be locked.
            OSError: it cannot be written.
        """
        with self._lock:
            if suspect.sha256 not in self._made:
                raise DataError(f"{suspect.path}: there is no decision of this review to undo")
            with edit_corrections(self._path) as corrections:
                if corrections.get(suspect.sha256) != self._made[suspect.sha256]:
                    raise DataError(f"{suspect.path}: its line was changed since; edit {self._path} instead")
                del corrections[suspect.sha256]
            del self._made[suspect.sha256]
        return self._count_left(corrections)

    def render(self, suspect: Suspect, max_pixels: int) -> bytes:
        """Return the image as PNG, upright and in the colours that the model sees, with at most 1024 px a side.

        Raises:
            ImageError: it cannot be decoded.
            ArchiveError: it cannot be read.
        """
        image = to_rgb(decode(self._archive.read(suspect.path), max_pixels=max_pixels))
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _count_left(self, corrections: Mapping[str, Correction]) -> int:
        return sum(sha256 not in corrections for sha256 in self._suspects)
