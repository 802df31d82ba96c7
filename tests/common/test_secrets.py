"""Passwords: in no message, traceback, log or run, in whatever form they were given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from conftest import client

from gender_classifier.common.secrets import drop_credentials, hide_secrets
from gender_classifier.track.run import track

SECRET = "s3cr3t-p4ss"
ADDRESSES = (
    f"postgresql://user:{SECRET}@127.0.0.1:1/mlflow",
    f"postgresql://user:{SECRET}@127.0.0.1:port/mlflow",
    f"postgresql://user:{SECRET}@[::1/mlflow",
    f"postgresql://user:{SECRET}/x@y@127.0.0.1:1/mlflow",
    f"postgresql://127.0.0.1:1/mlflow?user=u&password={SECRET}",
    f"postgresql+nodriver://user:{SECRET}@127.0.0.1:1/mlflow",
    f"nosuch://user:{SECRET}@127.0.0.1/mlflow",
    f"http://user:{SECRET}@127.0.0.1:1",
    f"http://user:{SECRET}@127.0.0.1:port",
    f"http://user:{SECRET}%21@127.0.0.1:1",
    f"http://{SECRET}@127.0.0.1:1",
    f"http://user:{SECRET}@\u2100host:1",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "command", [["sync"], ["ui", "--port", "1"], ["promote", "1", "--debug"]], ids=lambda one: one[0]
)
def test_no_command_shows_the_password_of_the_store(command: list[str], address: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {
        "PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "gender_classifier", *command], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert SECRET not in printed
    assert "error: " in printed or "--debug" in command
    assert ("Traceback" in printed) == ("--debug" in command)
    if "--debug" not in command:
        assert len(done.stderr.splitlines()) == 1, printed
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("at postgresql://me:pw1@db/x, port", "at postgresql://***@db/x, port"),
        ("http://h/?a=1&access_token=abc&b=2", "http://h/?a=1&access_token=***&b=2"),
        ("password%3Dabc is %26password%3Dabc%26x", "password%3Dabc is %26password%3D***%26x"),
        ("https://example.org/a:b@c", "https://example.org/a:b@c"),
        ("mail me@example.org at 12:30", "mail me@example.org at 12:30"),
    ],
)
def test_addresses_in_any_text_lose_their_passwords(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


def test_secrets_of_the_environment_are_hidden_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss word/é")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123")
    for form in ("p@ss word/é", "p%40ss%20word%2F%C3%A9", "p%40ss+word%2F%C3%A9", "tok-123"):
        assert hide_secrets(f"<{form}>") == "<***>"


def test_a_store_is_the_same_whoever_logs_in() -> None:
    assert drop_credentials("postgresql://a:b@db/x") == drop_credentials("postgresql://c:d@db/x") == "postgresql://db/x"
    assert drop_credentials("http://h:5000") == "http://h:5000"
    assert drop_credentials("sqlite:a.db") == "sqlite:a.db"


def test_params_and_tags_of_a_run_hold_no_password(root: Path) -> None:
    address = f"http://user:{SECRET}@example.org/faces.zip"
    with track("train", root, params={"source": address}) as run:
        run.set_tags({"note": f"from {address}"})
    found = client(root).get_run(run.run_id).data
    assert found.params["source"] == "http://***@example.org/faces.zip"
    assert SECRET not in str(found.tags)
