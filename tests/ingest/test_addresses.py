"""Data at an address: refused as a source, fetched and updated by DVC as docs/data.md says."""

import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT, SMALL, clone
from conftest import picture
from servers import answers, free_port, serving

from gender_classifier.data.raw_table import read_raw_table
from gender_classifier.errors import SourceError
from gender_classifier.ingest.sources import ingest
from gender_classifier.pipeline.params import load_params

PARAMS = load_params(ROOT / "params.yaml").ingest


@pytest.mark.parametrize("address", ["https://me:secret@example.org/faces.zip", "s3://bucket/faces"])
def test_an_address_is_refused_with_the_command_that_fetches_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(
        SourceError, match="is an address, and a path is needed; fetch it first with `dvc import-url"
    ) as caught:
        ingest(replace(PARAMS, source=address), tmp_path / "raw.zip", tmp_path / "raw.csv", base_dir=tmp_path)
    assert "secret" not in str(caught.value)


def write_set(path: Path, *labels: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            for label in labels:
                archive.writestr(f"{label}/{number}.jpg", picture(number))


@pytest.mark.slow
def test_the_documented_commands_fetch_a_zip_and_update_it(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    write_set(tmp_path / "served" / "faces.zip", "cat", "dog")
    checkout, port = clone(tmp_path / "clone", SMALL), free_port()
    fetch, update = re.findall(r"^dvc (?:import-url|update) .*$", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]

    def list_labels() -> set[str]:
        table = read_raw_table(checkout.folder / "data/raw.csv")
        return {row.label for row in table.rows}

    with serving(command, tmp_path / "served", lambda: answers(address)):
        checkout.run("sh", "-c", fetch.replace("https://example.org", address))
        params = checkout.folder / "params.yaml"
        params.write_text(params.read_text().replace("source: sample", "source: faces.zip"))
        checkout.run("dvc", "repro", "--single-item", "ingest")
        assert list_labels() == {"cat", "dog"}
        write_set(tmp_path / "served" / "faces.zip", "cat", "dog", "owl")
        checkout.run("sh", "-c", update.partition("  ")[0].removesuffix(" && dvc repro"))
        assert list_labels() == {"cat", "dog", "owl"}
