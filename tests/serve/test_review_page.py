"""The page of `gender-classifier review` in a real browser: keyboard alone, a phone, 500 suspects, odd names."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Watch, open_browser
from conftest import encode, picture
from playwright.sync_api import BrowserContext, Page, expect
from reviewed import Reviewed, reviewed, write_data

from gender_classifier.data.corrections import Correction, edit_corrections, now
from gender_classifier.ingest.sample import draw_sample

pytestmark = pytest.mark.ui

SETTLED = "() => new Promise(done => { const look = () => isReady ? done() : setTimeout(look, 1); look(); })"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def review(tmp_path: Path) -> Iterator[Reviewed]:
    layout, _ = write_data(tmp_path, {f"Training/{n}.jpg": picture(n) for n in range(5)})
    with reviewed(layout) as running:
        yield running


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """An empty page, which at the end has complained of nothing."""
    page = browser.new_page()
    page.set_viewport_size({"width": 1200, "height": 900})
    watch = Watch(page)
    yield page
    assert not watch.complaints
    page.close()


def open_review(page: Page, running: Reviewed) -> None:
    page.goto("about:blank")  # another part after the # alone loads nothing
    page.goto(running.url)
    expect(page.locator("#left")).to_contain_text("left")


def expect_left(page: Page, left: int, path: str | None = None) -> None:
    expect(page.locator("#left")).to_have_text(f"{left} left")
    if path:
        expect(page.locator("#facts")).to_contain_text(path)


def settle(page: Page) -> None:
    """Wait until the image is in sight and the last decision is saved: from then on keys are taken."""
    page.evaluate(SETTLED)


def press(page: Page, key: str, status: str) -> None:
    """Press a key as soon as the page takes it, and wait for what it says."""
    settle(page)
    page.keyboard.press(key)
    expect(page.locator("#status")).to_have_text(status)


def test_by_keyboard_alone_every_decision_skip_and_undo(page: Page, review: Reviewed) -> None:
    open_review(page, review)
    expect_left(page, 5, "Training/0.jpg")
    expect(page.locator("#question")).to_have_text("Labelled “female”. The model suggests “male”.")
    press(page, "k", "Kept “female”.")
    expect_left(page, 4, "Training/1.jpg")
    press(page, "o", "Changed to “female”.")
    press(page, "s", "Skipped.")
    expect_left(page, 3, "Training/3.jpg")
    press(page, "r", "Removed.")
    assert review.labels == {"Training/0.jpg": "female", "Training/1.jpg": "female", "Training/3.jpg": ""}
    press(page, "u", "Undone: Removed.")
    expect_left(page, 3, "Training/3.jpg")
    press(page, "Control+z", "Undone: Skipped.")
    expect_left(page, 3, "Training/2.jpg")
    press(page, "u", "Undone: Changed to “female”.")
    assert review.labels == {"Training/0.jpg": "female"}
    for key in ("s", "o", "o", "o"):
        settle(page)
        page.keyboard.press(key)
    expect(page.locator("#end-text")).to_contain_text("1 skipped image will be proposed again next time.")
    expect_left(page, 1)
    press(page, "s", "")
    expect_left(page, 1, "Training/1.jpg")
    press(page, "k", "Kept “male”.")
    expect(page.locator("#end-text")).to_contain_text("All images are reviewed.")
    assert len(review.decisions) == 5
    # The buttons are reached by Tab, and say what they do.
    press(page, "u", "Undone: Kept “male”.")
    page.locator("body").click(position={"x": 1, "y": 1})
    seen = []
    for _ in range(5):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    assert seen == ["keep", "other", "remove", "skip", "undo"]
    page.locator("#other").focus()
    settle(page)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Changed to “female”.")
    assert review.labels["Training/1.jpg"] == "female"


def test_a_key_that_is_held_down_decides_once(page: Page, review: Reviewed) -> None:
    open_review(page, review)
    for key, left in (("k", 4), ("Enter", 3)):
        settle(page)
        if key == "Enter":
            page.locator("#keep").focus()
        for _ in range(4):  # all but the first are repeats
            page.keyboard.down(key)
            settle(page)
        page.keyboard.up(key)
        expect_left(page, left)
        assert len(review.decisions) == 5 - left


def test_closing_in_the_middle_loses_nothing(page: Page, review: Reviewed) -> None:
    """The window, then the command, by a kill; a decision of somebody else's meanwhile is respected."""
    open_review(page, review)
    press(page, "o", "Changed to “male”.")
    press(page, "s", "Skipped.")
    open_review(page, review)
    expect_left(page, 4, "Training/1.jpg")
    press(page, "u", "Undone: Changed to “male”.")
    expect_left(page, 5, "Training/0.jpg")
    press(page, "r", "Removed.")
    press(page, "k", "Kept “male”.")
    before = review.layout.corrections_path.read_bytes()
    with reviewed(review.layout) as again:  # of the first, only the page is left to the end of the test
        assert review.layout.corrections_path.read_bytes() == before
        open_review(page, again)
        expect_left(page, 3, "Training/2.jpg")
        expect(page.locator("#undo")).to_be_hidden()  # earlier decisions are in the file, for an editor


def test_more_than_two_classes_have_a_digit_each(page: Page, tmp_path: Path) -> None:
    classes = ("60+", "<b>child</b>", "man", "woman")
    layout, _ = write_data(tmp_path, {f"{n}.jpg": picture(n) for n in range(4)}, classes)
    with reviewed(layout) as running:
        open_review(page, running)
        expect(page.locator("#classes button")).to_have_text(["160+", "2<b>child</b>", "3man", "4woman"])
        expect(page.locator("#other")).to_have_text("OChange to “<b>child</b>”")
        press(page, "3", "Changed to “man”.")
        press(page, "2", "Kept “<b>child</b>”.")
        press(page, "o", "Changed to “woman”.")  # the one suggested
        page.locator("#classes button").first.click()
        expect(page.locator("#end-text")).to_be_visible()
        assert running.labels == {"0.jpg": "man", "1.jpg": "<b>child</b>", "2.jpg": "woman", "3.jpg": "60+"}


def test_on_a_phone_everything_fits_and_names_are_text(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    name = f"Training/<img src=x onerror=document.title=1>{'long-' * 40}.jpg"
    wide = encode(np.full((20, 900, 3), 90, np.uint8), "PNG")
    layout, _ = write_data(tmp_path, {name: picture(1), "wide.png": wide}, (f"a-{'very-' * 15}long-class", "b", "c"))
    with reviewed(layout) as running:
        open_review(page, running)
        for path, key in ((name, "s"), ("wide.png", "s")):
            expect(page.locator("#facts")).to_contain_text(path)
            settle(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            bottom = page.locator("#actions").bounding_box()
            picture_box = page.locator("#image").bounding_box()
            assert bottom is not None
            assert picture_box is not None
            assert picture_box["width"] > 300
            assert all(
                (button.bounding_box() or {"height": 0})["height"] >= 44
                for button in page.locator("button:visible").all()
            )
            page.keyboard.press(key)
        assert page.title() == "gender-classifier: review"


def test_on_a_phone_every_button_of_three_classes_is_in_sight(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    layout, _ = write_data(tmp_path, {f"{n}.jpg": picture(n) for n in range(2)}, ("woman", "man", "child"))
    with reviewed(layout) as running:
        open_review(page, running)
        press(page, "s", "Skipped.")
        settle(page)
        buttons = page.locator("button:visible")
        expect(buttons).to_have_count(8)
        boxes = [button.bounding_box() or {"y": 740, "height": 0} for button in buttons.all()]
        assert max(box["y"] + box["height"] for box in boxes) <= 740
        assert len({box["height"] for box in boxes[4:7]}) == 1
        assert boxes[4]["height"] == 44  # no name breaks


def test_without_its_token_the_page_shows_and_changes_nothing(browser: BrowserContext, review: Reviewed) -> None:
    page = browser.new_page()  # Chromium itself notes the refusals
    for address in (review.address, f"{review.address}/#wrong"):
        page.goto("about:blank")
        page.goto(address)
        expect(page.locator("#problem")).to_contain_text("open the address that `gender-classifier review` printed")
        expect(page.locator("#suspect")).to_be_hidden()
    page.close()


def test_a_disk_that_refuses_and_a_command_that_ended_are_told(browser: BrowserContext, tmp_path: Path) -> None:
    layout, _ = write_data(tmp_path, {f"{n}.jpg": picture(n) for n in range(3)})
    page = browser.new_page()
    with reviewed(layout) as running:
        open_review(page, running)
        text = layout.corrections_path.read_text()
        layout.corrections_path.write_text("spoilt\n")
        settle(page)
        page.keyboard.press("k")
        expect(page.locator("#problem")).to_contain_text("line 1 lacks the column")
        expect_left(page, 3, "0.jpg")
        layout.corrections_path.write_text(text)
        press(page, "k", "Kept “female”.")
        expect(page.locator("#problem")).to_have_text("")
        settle(page)
    page.keyboard.press("k")
    expect(page.locator("#problem")).to_contain_text("The command has ended. What you decided is saved")
    expect_left(page, 2, "1.jpg")
    page.close()


def test_windows_and_people_that_decide_at_once(browser: BrowserContext, review: Reviewed) -> None:
    """No decision is replaced unseen, and undo goes past one that is undone or replaced already."""
    first, second = browser.new_page(), browser.new_page()  # Chromium itself notes the refusals
    open_review(first, review)
    press(first, "k", "Kept “female”.")
    press(first, "o", "Changed to “female”.")
    press(first, "s", "Skipped.")
    open_review(second, review)
    press(second, "u", "Undone: Changed to “female”.")
    settle(first)
    press(first, "u", "Undone: Skipped.")
    settle(first)
    first.keyboard.press("u")
    expect(first.locator("#problem")).to_contain_text("1.jpg: there is no decision of this review to undo")
    expect_left(first, 4, "Training/1.jpg")
    press(first, "u", "Undone: Kept “female”.")
    assert review.labels == {}
    expect_left(first, 5, "Training/0.jpg")
    # Somebody else's decision about the image that the first window shows.
    with edit_corrections(review.layout.corrections_path) as corrections:
        sha256 = hashlib.sha256(picture(0)).hexdigest()
        corrections[sha256] = Correction(sha256, "Training/0.jpg", "female", "", now())
    settle(first)
    first.keyboard.press("k")
    expect(first.locator("#problem")).to_contain_text("0.jpg: was decided elsewhere meanwhile (removal)")
    expect_left(first, 4, "Training/1.jpg")
    expect(first.locator("#undo")).to_be_hidden()
    for key in "kkkk":
        settle(first)
        first.keyboard.press(key)
    expect(first.locator("#end-text")).to_contain_text("All images are reviewed.")
    # The second window still shows one of these, and is told at its last image too.
    settle(second)
    second.keyboard.press("o")
    expect(second.locator("#problem")).to_contain_text("1.jpg: was decided elsewhere meanwhile ('male' kept)")
    expect(second.locator("#end-text")).to_contain_text("All images are reviewed.")
    expect_left(second, 0)
    assert review.labels["Training/0.jpg"] == ""
    first.close()
    second.close()


def test_five_hundred_suspects_are_decided_by_key(
    page: Page, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each next image is fetched before its turn, and the page holds one image whatever their number."""
    total = 500
    layout, _ = write_data(tmp_path, {f"{n:03}.jpg": picture(n) for n in range(total)})
    with reviewed(layout) as running:
        open_review(page, running)
        settle(page)
        elements = page.evaluate("document.querySelectorAll('*').length")
        page.evaluate(
            """() => {
                window.fetched = 0; // of the images shown, those that were there before the key was pressed
                addEventListener("keydown", () => { if (queue[1] && images.has(queue[1].sha256)) window.fetched += 1; }, true);
            }"""
        )
        waits = []
        for number in range(total):
            key = "kor"[number % 3]
            began = time.perf_counter()
            page.keyboard.press(key)
            settle(page)
            waits.append(time.perf_counter() - began)
        expect(page.locator("#end-text")).to_contain_text("All images are reviewed.")
        assert page.evaluate("window.fetched") == total - 1
        assert page.evaluate("document.querySelectorAll('*').length") == elements
        assert page.evaluate("images.size") <= 8
        assert len(running.decisions) == total
        labels = [running.labels[f"{number:03}.jpg"] for number in range(total)]
    expected = [
        (name, ("male", "female")[n % 2], "")[n % 3] for n, name in enumerate(("female", "male") * (total // 2))
    ]
    assert labels == expected
    median, slowest = np.quantile(waits, [0.5, 0.99])
    record_property("seconds_per_key", json.dumps([round(float(value), 4) for value in (median, slowest)]))
    print(f"from a key to the next image: median {1000 * median:.0f} ms, 99 % below {1000 * slowest:.0f} ms")


@pytest.mark.parametrize("classes", [("female", "male"), ("child", "woman", "man")])
def test_an_unfamiliar_image_is_asked_about_and_removed(page: Page, tmp_path: Path, classes: tuple[str, ...]) -> None:
    layout, digests = write_data(tmp_path, {f"Training/{n}.jpg": picture(n) for n in range(3)}, classes)
    with reviewed(layout, "--unfamiliar") as running:
        open_review(page, running)
        expect_left(page, 3, "Training/2.jpg")
        label = classes[2 % len(classes)]
        expect(page.locator("#question")).to_have_text(f"Labelled “{label}”. Is it a face?")
        expect(page.locator("#facts")).to_contain_text("It is 1.67 times as unfamiliar as the limit for faces.")
        expect(page.locator("#other")).to_be_visible(visible=len(classes) == 2)  # no class is suggested
        press(page, "r", "Removed.")
        expect_left(page, 2, "Training/1.jpg")
        press(page, "k", f"Kept “{classes[1]}”.")
        if len(classes) > 2:
            settle(page)
            page.keyboard.press("o")
            expect_left(page, 1, "Training/0.jpg")
            press(page, "3", "Changed to “man”.")
        assert [running.decisions[key].label_after for key in digests[1:]] == [classes[1], ""]


def test_pictures_for_the_docs(browser: BrowserContext, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """With --screenshots: drawn portraits, each under the other class; real faces stay out of Git."""
    folder = pytestconfig.getoption("--screenshots")
    if folder is None:
        pytest.skip("no --screenshots FOLDER")
    drawn = [(name, data) for name, data in draw_sample(7) if name.startswith("Validation/")]
    by_class = [[data for name, data in drawn if f"/{label}/" in name] for label in ("male", "female")]
    portraits = [data for pair in zip(*by_class, strict=False) for data in pair][:24]
    names = [f"Training/{('female', 'male')[n % 2]}/{n:06}.jpg" for n in range(len(portraits))]
    layout, _ = write_data(tmp_path, dict(zip(names, portraits, strict=True)))
    with reviewed(layout) as running:
        page = browser.new_page()
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 900, "height": 780})
        open_review(page, running)
        press(page, "k", "Kept “female”.")
        press(page, "o", "Changed to “female”.")
        settle(page)
        page.screenshot(path=Path(folder) / "review.png")
        page.close()
