"""A password in an address or in the environment is shown nowhere: not in messages, errors of libraries, tracebacks."""

import base64
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from conftest import client
from hypothesis import given, settings
from hypothesis import strategies as st

from gender_classifier.cli.main import main
from gender_classifier.common import credentials
from gender_classifier.common.credentials import find_secrets, hide_in_addresses, hide_secrets, strip_credentials
from gender_classifier.errors import TrackingError
from gender_classifier.track.run import track
from gender_classifier.track.store import connect, shorten

SECRET = "Gehe1m-Wort"

# Nobody listens at port 1. Most are badly formed; in some, the password holds what ends the part of the host.
ADDRESSES = [
    f"http://you:{SECRET}@127.0.0.1:1",
    f"http://you:{SECRET}@127.0.0.1:port",
    f"http://you:{SECRET}@127.0.0.1:99999999",
    f"http://you:{SECRET}@[::1",
    f"http://you:[{SECRET}@127.0.0.1:1",
    f"http://you:a/{SECRET}@127.0.0.1:1",
    f"http://you:a#{SECRET}@127.0.0.1:1",
    f"http://you:a {SECRET}@127.0.0.1:1",
    f"http://you:{SECRET}@",
    f"http://you:{SECRET}@\u2100.com",
    f"http:/you:{SECRET}@127.0.0.1:1",
    f"http//you:{SECRET}@127.0.0.1:1",
    f"you:{SECRET}@127.0.0.1:1",
    f"HTTP://{SECRET}@127.0.0.1:1",
    f"http://127.0.0.1:1/?access_token={SECRET}",
    f"nonsense://you:{SECRET}@127.0.0.1:1",
    f"s3://you:{SECRET}@bucket/path",
    f"sqlite://you:{SECRET}@host/x.db",
    f"sqlite:///:memory:?password={SECRET}",
    f"file://you:{SECRET}@host/x",
    f"postgresql://you:{SECRET}@127.0.0.1:1/mlflow",
    f"postgresql://you:{SECRET}@127.0.0.1:port/mlflow",
    f"postgresql://you:a@{SECRET}@127.0.0.1:1/mlflow",
    f"postgresql+nodriver://you:{SECRET}@127.0.0.1:1/mlflow",
    f"mysql://127.0.0.1:1/mlflow?sslpassword={SECRET}",
]


def nowhere(*places: object) -> None:
    for place in places:
        assert SECRET.lower() not in str(place).lower()


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_command_shows_the_password_of_an_address(
    address: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = ["predict", "a.png", "--model", "models:/gender-classifier@champion"]
    for arguments in (["sync"], ["ui"], ["promote", "1"], ["rollback"], model):
        assert main(arguments) == 1
        out, errors = capsys.readouterr()
        assert (out, errors.count("\n")) == ("", 1)
        assert errors.startswith(f"gender-classifier {arguments[0]}: error: ")
        nowhere(errors)
    with pytest.raises(TrackingError) as caught, track("train", root, params={}):
        pass
    assert "\n" not in str(caught.value)
    nowhere(caught.value, *root.rglob("*"))


@pytest.mark.parametrize("address", ADDRESSES[:4])
def test_no_command_shows_the_password_of_the_registry(
    address: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["promote", "1"]) == 1
    nowhere(errors := capsys.readouterr().err)
    assert errors.count("\n") == 1


def test_a_good_address_with_a_password_that_is_not_escaped_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://you:a/b#{SECRET}@127.0.0.1:1/mlflow")
    with pytest.raises(TrackingError, match="database at 127.0.0.1:1 does not answer"):
        connect(tmp_path)


def test_a_path_may_hold_an_at_sign(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs@home").mkdir()
    shutil.copy(empty_store, tmp_path / "runs@home" / "x.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs@home/x.db")
    with track("train", tmp_path, params={}) as run:
        pass
    assert (tmp_path / "runs@home" / "mlartifacts").as_uri() in connect(tmp_path).get_run(run.run_id).info.artifact_uri


@pytest.mark.slow
@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("address", [ADDRESSES[1], ADDRESSES[0], ADDRESSES[17]])
def test_no_stage_shows_it_with_its_traceback_either(address: str, debug: list[str], tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").touch()
    done = subprocess.run(
        [sys.executable, str(root / "stages" / "ingest.py"), *debug],
        cwd=tmp_path, env={**os.environ, "MLFLOW_TRACKING_URI": address}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == bool(debug)
    nowhere(done.stdout, done.stderr, *tmp_path.rglob("*"))


def test_tracebacks_warnings_and_logs_hide_what_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    stream = sys.stderr
    credentials.protect_stderr()
    credentials.protect_stderr()
    try:
        raise ValueError(f"GET http://host/?x={SECRET}")
    except ValueError:
        traceback.print_exc()
    logging.StreamHandler().handle(logging.LogRecord("urllib3", 30, "", 1, "retrying with %s", (SECRET,), None))
    sys.stderr.writelines(["token ", SECRET, "\n"])
    shown = stream.getvalue()
    assert "ValueError" in shown
    assert "retrying with ***\n" in shown
    assert "token ***\n" in shown
    nowhere(shown)


def test_without_secrets_standard_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    stream = sys.stderr
    credentials.protect_stderr()
    assert sys.stderr is stream


def test_what_the_store_is_told_holds_no_password(root: Path) -> None:
    address = f"https://you:{SECRET}@example.org/faces"
    with track("train", root, params={"source": address, "lr": 0.1}) as run:
        run.set_tags({"note": f"from {address}", "query": f"https://example.org?password={SECRET}&a=1"})
    found = client(root).get_run(run.run_id)
    nowhere(found.to_dictionary())
    assert found.data.params == {"source": "https://***@example.org/faces", "lr": "0.1"}
    assert found.data.tags["query"].endswith("&a=1")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs"]), min_size=8, max_size=16)


@settings(deadline=None)
@given(WORDS)
def test_a_known_secret_is_hidden_in_every_spelling(secret: str) -> None:
    for spelled in (
        secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="").lower(),
        json.dumps(secret)[1:-1], repr(secret)[1:-1], ascii(secret)[1:-1],
    ):  # fmt: skip
        shown = hide_secrets(f"failed: ({spelled}) at", known=[secret])
        assert shown == "failed: (***) at"


@settings(deadline=None)
@given(WORDS.filter(lambda word: not set("'\"<>") & set(word)))
def test_any_password_in_an_address_is_hidden_without_knowing_it(secret: str) -> None:
    shown = hide_secrets(f"open https://you:{secret}@example.org/a: refused", known=())
    assert shown == "open https://***@example.org/a: refused"


def test_the_environments_secrets_are_found_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    harmless = {
        "PWD": "/home/me/project", "SSH_ASKPASS": "/usr/bin/askpass", "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_TRACKING_URI": "sqlite:////home/me@home/mlflow.db", "HTTP_PROXY": "http://proxy:3128",
        "MLFLOW_TRACKING_USERNAME": "somebody",
    }  # fmt: skip
    for name, value in harmless.items():
        monkeypatch.setenv(name, value)
    assert find_secrets() == set()
    secret = {
        "MLFLOW_TRACKING_PASSWORD": "first", "MLFLOW_TRACKING_TOKEN": "second", "AWS_SECRET_ACCESS_KEY": "third",
        "https_proxy": "http://me:fourth@proxy:1", "MLFLOW_ARTIFACTS_DESTINATION": "ftp://me:fifth@host/x",
        "MLFLOW_BACKEND_STORE_URI": "mysql://host/x?ssl_password=sixth", "PGPASSWORD": "seventh",
    }  # fmt: skip
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    assert {"first", "second", "third", "fourth", "fifth", "sixth", "seventh"} <= find_secrets()
    header = base64.b64encode(b"me:fourth").decode()
    assert hide_secrets(f"Authorization: Basic {header} of first") == "Authorization: Basic *** of ***"


@pytest.mark.parametrize(
    "text",
    [
        "url: /?password={} (Caused by x)", "{{'password': '{}'}}", '{{"token": "{}"}}', "?a=1&sslpassword={}&b=1",
        "Authorization: Bearer {}", "AccountKey={};EndpointSuffix=x", "host=h password={} dbname=d", "https://{}@host/a@b",
        "https://you:{}@host:5000", "https://you:a/b?{}#c@host/x", "redis://:{}@host",
    ],
)  # fmt: skip
def test_secrets_in_texts_are_known_by_what_stands_around_them(text: str) -> None:
    nowhere(hide_secrets(text.format(SECRET), known=()))


@pytest.mark.parametrize(
    "piece", ["a-", "://a:", "password=", ":", "://", "a@", "=%3D", "'token': ", "authorization: a "]
)
def test_hiding_takes_time_in_proportion_to_the_text(piece: str) -> None:
    """A server decides how long its error is: in quadratic time, this one takes minutes."""
    hide_secrets(piece * (400_000 // len(piece)), known=["Passw0rd"])


@pytest.mark.parametrize(
    "text",
    [
        "models:/gender-classifier@champion: no such version", "/home/me@home/faces.zip: no such file",
        "https://example.org/a@b?x=1", "password must not be empty", "see me@example.org",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_secrets(text, known=()) == hide_in_addresses(text) == text


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://you:x@host:5000/a/?b=1", "https://host:5000/a?b=1"),
        ("https://host/a?token=x&b=1&sslpassword=y", "https://host/a?b=1"),
        ("postgresql://you:a/b?c#d@host/db", "postgresql://host/db"),
        ("HTTP://host/", "http://host"),
        ("sqlite:mlflow.db", "sqlite:mlflow.db"),
        ("sqlite:////home/me@home/x.db", "sqlite:////home/me@home/x.db"),
        ("databricks", "databricks"),
    ],
)
def test_what_tells_stores_apart_has_no_credentials(address: str, plain: str) -> None:
    assert strip_credentials(address) == plain


def test_errors_of_libraries_are_one_line_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    shown = shorten(ValueError(f"server says \x1b[31m{SECRET}\nagain\u202e"))
    assert shown == r"server says \x1b[31m*** again\u202e"
