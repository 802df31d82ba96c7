"""`gender-classifier ui` in a real browser, on a store that has runs of data stages alone."""

import re
import sys
from pathlib import Path

import pytest
from browsing import open_browser
from playwright.sync_api import expect
from servers import free_port, serving

from gender_classifier.track.run import track

pytestmark = pytest.mark.ui


def test_before_the_first_model_it_opens_the_experiments_with_the_registry_in_sight(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "dvc.yaml").touch()
    with track("ingest", root, params={}, data=True):
        pass
    log = root / "server.log"
    command = [str(Path(sys.executable).with_name("gender-classifier")), "ui", "--port", str(free_port())]
    with (
        serving(command, root, lambda: "MLflow UI: " in log.read_text()),
        open_browser(tmp_path / "profile", {"width": 1300, "height": 700}) as browser,
    ):
        page = browser.new_page()
        page.goto(re.findall(r"MLflow UI: (\S+)", log.read_text())[-1])
        expect(page.get_by_role("link", name="gender-classifier-data")).to_be_visible()
        expect(page.get_by_role("link", name="Model registry")).to_be_visible()
