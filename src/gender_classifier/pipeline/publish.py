"""Writing of a stage's artifacts, and their upload to MLflow."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from gender_classifier.common.artifacts import Artifact, Run, Table
from gender_classifier.common.figures import save_figure
from gender_classifier.common.files import write_bytes, write_json, write_text
from gender_classifier.common.spreadsheet import write_table

_logger = logging.getLogger(__name__)


def publish(root: Path, artifacts: Iterable[Artifact], run: Run | None = None) -> None:
    """Write each artifact below ``root`` atomically; then upload those that have a folder in the run."""
    written = []
    for artifact in artifacts:
        _write(root / artifact.path, artifact)
        _logger.debug("wrote %s", artifact.path)
        written.append((artifact.path, artifact.mirror))
    for path, mirror in written:
        if run is not None and mirror is not None:
            run.log_artifact(root / path, mirror or None)


def _write(path: Path, artifact: Artifact) -> None:
    content = artifact.content
    if isinstance(content, Table):
        write_table(path, content.header, content.rows)
    elif isinstance(content, Mapping):
        write_json(path, content)
    elif isinstance(content, str):
        write_text(path, content)
    elif isinstance(content, bytes):
        write_bytes(path, content)
    else:
        save_figure(content, path)
