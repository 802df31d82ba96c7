"""The review's requests, without a browser: what is proposed, what is written, who may ask."""

import io
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import draw_pixels, encode, picture
from fastapi.testclient import TestClient
from PIL import Image
from reviewed import write_data

from gender_classifier.cli.main import main
from gender_classifier.common.files import write_json
from gender_classifier.common.paths import Layout
from gender_classifier.common.spreadsheet import write_table
from gender_classifier.data.archive import Archive, write_archive
from gender_classifier.data.corrections import edit_corrections, read_corrections
from gender_classifier.serve.review.app import build_review_app
from gender_classifier.serve.review.session import Review
from gender_classifier.serve.review.suspects import load_suspects

CLASSES = ("female", "male", "60+")
NAMES = [f"Training/{n}.jpg" for n in range(5)]
TOKEN = {"Authorization": "Bearer open-sesame"}


@pytest.fixture
def data(tmp_path: Path) -> tuple[Layout, list[str]]:
    return write_data(tmp_path, {name: picture(n) for n, name in enumerate(NAMES)}, CLASSES)


@pytest.fixture
def client(data: tuple[Layout, list[str]]) -> Iterator[TestClient]:
    layout, _ = data
    with Archive(layout.raw_archive_path) as archive:
        found = load_suspects(layout, archive, CLASSES)
        review = Review(found.open, CLASSES, archive, layout.corrections_path)
        app = build_review_app(review, "open-sesame", 10**6)
        with TestClient(app, base_url="http://127.0.0.1:8001", headers=TOKEN) as client:
            yield client


def test_suspects_of_a_model_that_guesses_are_not_to_be_trusted(
    data: tuple[Layout, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, _ = data
    monkeypatch.chdir(layout.root)
    write_table(layout.suspects_path, ["split", "member", "label", "suggested", "prob_label"], [])
    for right, warns in ((10, True), (80, False)):
        row = dict.fromkeys(CLASSES, 10)
        write_json(layout.val_confusion_path, {name: row | {name: right} for name in CLASSES})
        assert main(["review"]) == 0
        out = capsys.readouterr().out
        assert (
            "on val cannot be told from that of always answering female (0.3333): do not trust these suspects\n" in out
        ) is warns


def listed(client: TestClient) -> list[str]:
    return [suspect["path"] for suspect in client.get("/suspects").json()["open"]]


def test_the_likeliest_come_first_and_a_decision_is_on_disk_before_its_answer(
    client: TestClient, data: tuple[Layout, list[str]]
) -> None:
    layout, digests = data
    assert listed(client) == NAMES
    for place, label in enumerate(("female", "60+", "")):  # kept, another class, removed
        answer = client.put(f"/decisions/{digests[place]}", params={"label": label})
        assert answer.json() == {"left": 4 - place}
        made = read_corrections(layout.corrections_path)[digests[place]]
        assert (made.path, made.label_before, made.label_after) == (NAMES[place], CLASSES[place], label)
    assert listed(client) == NAMES[3:]
    decided = client.get("/suspects").json()["decided"]
    assert [(found["path"], found["decision"]) for found in decided] == list(
        zip(NAMES[:3], ("female", "60+", ""), strict=True)
    )
    assert client.delete(f"/decisions/{digests[1]}").json() == {"left": 3}
    assert listed(client) == [NAMES[1], *NAMES[3:]]
    assert digests[1] not in read_corrections(layout.corrections_path)


def test_a_decision_replaces_none_that_somebody_else_made(client: TestClient, data: tuple[Layout, list[str]]) -> None:
    """A colleague's file is merged while the page is open and shows the same images."""
    layout, (first, second, third, *_) = data
    assert client.put(f"/decisions/{second}", params={"label": "male"}).json() == {"left": 4}
    assert client.put(f"/decisions/{second}", params={"label": "male"}).json() == {"left": 4}  # the answer was lost
    with edit_corrections(layout.corrections_path) as corrections:
        theirs = [
            replace(corrections[second], sha256=first, label_after=""),
            replace(corrections[second], label_after="60+"),
        ]
        corrections.update({row.sha256: row for row in theirs})
    before = layout.corrections_path.read_bytes()
    for method, sha256, message in (
        ("PUT", first, f"{NAMES[0]}: was decided elsewhere meanwhile (removal); edit {layout.corrections_path}"),
        ("PUT", second, f"{NAMES[1]}: was decided elsewhere meanwhile ('60+')"),
        ("DELETE", second, f"{NAMES[1]}: its line was changed since; edit {layout.corrections_path} instead"),
    ):
        answer = client.request(method, f"/decisions/{sha256}?label=male")
        assert (answer.status_code, message in answer.json()["error"]["message"]) == (409, True), answer.text
    assert layout.corrections_path.read_bytes() == before
    found = client.get("/suspects").json()
    assert [suspect["path"] for suspect in found["open"]] == NAMES[2:]
    assert found["decided"] == []  # no decision of this review stands
    assert client.put(f"/decisions/{third}", params={"label": "60+"}).json() == {"left": 2}
    assert client.delete(f"/decisions/{third}").json() == {"left": 3}
    assert layout.corrections_path.read_bytes() == before


def test_what_one_window_decided_another_neither_replaces_nor_undoes_twice(
    client: TestClient, data: tuple[Layout, list[str]]
) -> None:
    layout, (sha256, *_) = data
    client.put(f"/decisions/{sha256}", params={"label": "male"})
    answer = client.put(f"/decisions/{sha256}", params={"label": "60+"})
    assert (answer.status_code, "decided elsewhere meanwhile ('male')" in answer.text) == (409, True)
    assert client.delete(f"/decisions/{sha256}").json() == {"left": 5}
    answer = client.delete(f"/decisions/{sha256}")
    assert (answer.status_code, "there is no decision of this review to undo" in answer.text) == (409, True)
    assert client.put(f"/decisions/{sha256}", params={"label": "60+"}).json() == {"left": 4}
    assert read_corrections(layout.corrections_path)[sha256].label_after == "60+"


def test_an_image_is_shown_as_the_model_sees_it(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = encode(draw_pixels(1, 1500, 1000), "JPEG", exif=turned)
    layout, digests = write_data(tmp_path, {"a.jpg": upright, "b.tif": encode(draw_pixels(2), "TIFF"), "c.jpg": b"no"})
    with Archive(layout.raw_archive_path) as archive:
        review = Review(load_suspects(layout, archive, ("female", "male")).open, ("female", "male"), archive, Path())
        with TestClient(
            build_review_app(review, "open-sesame", 10**7), base_url="http://localhost", headers=TOKEN
        ) as client:
            sizes = []
            for digest in digests[:2]:
                answer = client.get(f"/images/{digest}")
                assert answer.headers["content-type"] == "image/png"
                sizes.append(Image.open(io.BytesIO(answer.content)).size)
            assert sizes == [(683, 1024), (80, 100)]
            assert client.get(f"/images/{digests[2]}").status_code == 409


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Host": "rebound.example"}, 421, "host"),
        ({"Origin": "http://127.0.0.1:9999"}, 403, "origin"),
        ({"Origin": "null"}, 403, "origin"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "origin"),
        ({"Authorization": "Bearer open-sesam"}, 401, "no_key"),
        ({"Authorization": ""}, 401, "no_key"),
        ({"Authorization": "Basic open-sesame"}, 401, "no_key"),
    ],
)
def test_strangers_and_other_pages_read_and_write_nothing(
    client: TestClient, data: tuple[Layout, list[str]], headers: dict[str, str], status: int, reason: str
) -> None:
    layout, (sha256, *_) = data
    for method in ("PUT", "DELETE"):
        answer = client.request(method, f"/decisions/{sha256}?label=male", headers=headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason)
        assert "allowed-hosts" not in answer.text  # an option of the service alone
    assert read_corrections(layout.corrections_path) == {}
    if status != 403:  # another page cannot read an answer, nor send the token
        for path in ("/suspects", f"/images/{sha256}"):
            assert client.get(path, headers=headers).status_code == status
    # The page's own files hold nothing of the data set.
    plain = {"Authorization": ""} if status == 401 else headers
    assert client.get("/", headers=plain).status_code == (421 if reason == "host" else 200)


def test_what_cannot_be_done_says_why_and_changes_nothing(client: TestClient, data: tuple[Layout, list[str]]) -> None:
    layout, (sha256, *_) = data
    for request, status, part in (
        (("PUT", f"/decisions/{sha256}?label=cat"), 409, "'cat' is no class"),
        (("PUT", f"/decisions/{'0' * 64}?label=male"), 404, "is the SHA-256 of no suspect"),
        (("GET", "/images/..%2F..%2Fparams.yaml"), 404, ""),
        (("DELETE", f"/decisions/{sha256}"), 409, "there is no decision of this review to undo"),
        (("POST", f"/decisions/{sha256}"), 405, "Method Not Allowed"),
    ):
        answer = client.request(*request)
        assert (answer.status_code, part in answer.json()["error"]["message"]) == (status, True), answer.text
    assert read_corrections(layout.corrections_path) == {}
    layout.corrections_path.write_text("spoilt\n")
    answer = client.put(f"/decisions/{sha256}", params={"label": "male"})
    assert (answer.status_code, "line 1 lacks the column" in answer.text) == (409, True)
    assert layout.corrections_path.read_text() == "spoilt\n"


def test_outdated_and_decided_suspects_and_copies_are_not_proposed(tmp_path: Path) -> None:
    images = {f"{n}.jpg": picture(n // 2) for n in range(6)}  # each twice
    layout, digests = write_data(tmp_path, images, ("a", "b"))
    with Archive(layout.raw_archive_path) as archive:
        assert [found.path for found in load_suspects(layout, archive, ("a", "b")).open] == ["0.jpg", "2.jpg", "4.jpg"]
        found = load_suspects(layout, archive, ("a", "b"), {digests[0]})
        assert ([suspect.path for suspect in found.open], found.outdated) == (["2.jpg", "4.jpg"], 0)
        assert load_suspects(layout, archive, ("a", "c")).outdated == 6 // 2
    table = layout.suspects_path.read_text()
    layout.suspects_path.write_text(table.replace("2.jpg,a", "2.jpg,b").replace("4.jpg", "gone.jpg"))
    with Archive(layout.raw_archive_path) as archive:
        found = load_suspects(layout, archive, ("a", "b"))
    assert ([suspect.path for suspect in found.open], found.outdated) == (["0.jpg", "3.jpg", "5.jpg"], 2)


def test_unfamiliar_images_are_proposed_in_their_order_without_a_class(data: tuple[Layout, list[str]]) -> None:
    layout, digests = data
    with Archive(layout.raw_archive_path) as archive:
        found = load_suspects(layout, archive, CLASSES, {digests[2]}, is_unfamiliar=True)
        review = Review(found.open, CLASSES, archive, layout.corrections_path)
        app = build_review_app(review, "open-sesame", 10**6)
        with TestClient(app, base_url="http://127.0.0.1:8001", headers=TOKEN) as client:
            listed = client.get("/suspects").json()["open"]
            assert [one["path"] for one in listed] == [NAMES[place] for place in (4, 3, 1, 0)]
            assert {(one["suggested"], one["prob"]) for one in listed} == {(None, None)}
            assert [one["times_threshold"] for one in listed] == [1.8, 1.6, 1.2, 1.0]
            assert client.put(f"/decisions/{digests[4]}", params={"label": ""}).json() == {"left": 3}
    assert read_corrections(layout.corrections_path)[digests[4]].label_after == ""


def test_a_taken_port_is_named_with_the_option_that_the_command_has(
    data: tuple[Layout, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data[0].root)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        assert main(["review", "--port", taken]) == 1
    message = f"127.0.0.1:{taken}: cannot listen there (Address already in use); change --port\n"
    assert capsys.readouterr().err.endswith(message)


def test_the_command_says_when_nothing_is_left_or_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["review"]) == 1
    assert "no dvc.yaml here or above; run it in a checkout" in capsys.readouterr().err
    layout, _ = write_data(tmp_path, {"a.jpg": picture(1)})
    shutil.copy(layout.suspects_path, tmp_path / "kept.csv")
    for text, message in (("", "lacks the column split"), ("split,member\n1", "lacks the column label")):
        layout.suspects_path.write_text(text or "\n1\n")
        assert main(["review"]) == 1
        assert message in capsys.readouterr().err
    layout.suspects_path.unlink()
    assert main(["review"]) == 1
    assert "label_issues.csv: no such file; run `dvc repro`" in capsys.readouterr().err
    layout.suspects_path.write_text("split,member,label,suggested,prob_label\n")
    assert main(["review"]) == 0
    assert capsys.readouterr().out == f"{layout.suspects_path}: no suspects are left to review\n"
    layout.strangers_path.write_text("split,member,label,times_threshold\ntest,a.jpg,female,high\n")
    with pytest.raises(SystemExit):
        main(["review", "--unfamiliar", "--merge", "theirs.csv"])
    assert "argument --merge: not allowed with argument --unfamiliar" in capsys.readouterr().err
    assert main(["review", "--unfamiliar"]) == 1
    assert "unfamiliar.csv: not a table of suspects (could not convert" in capsys.readouterr().err
    layout.strangers_path.write_text("split,member,label,times_threshold\n")
    assert main(["review", "--unfamiliar"]) == 0
    assert capsys.readouterr().out == f"{layout.strangers_path}: no unfamiliar images are left to review\n"
    write_archive(layout.raw_archive_path, [("b.jpg", picture(2))])
    shutil.copy(tmp_path / "kept.csv", layout.suspects_path)
    layout.raw_table_path.write_text("member,label,split,group\nb.jpg,male,train,\n")
    assert main(["review"]) == 0
    assert "left out, as the data have changed since: 1; run `dvc repro`" in capsys.readouterr().out
