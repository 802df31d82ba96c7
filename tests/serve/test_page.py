"""The page in a real browser: by mouse, by keyboard, on a phone, with a key; and with no other host."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest
from browsing import Watch, open_browser
from checkout import ROOT
from conftest import encode, picture
from playwright.sync_api import BrowserContext, FilePayload, Page, expect
from served import Served, grey, served, write_model

from gender_classifier.ingest.sample import draw_sample

pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("served"), "--max-bytes", "200000") as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Address of an empty page of another origin."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page(browser: BrowserContext, service: Served) -> Iterator[Page]:
    """The page as it opens; at the end, it has spoken with its own service only and complained of nothing."""
    page = browser.new_page()
    page.set_viewport_size({"width": 1200, "height": 900})
    watch = Watch(page)
    page.goto(service.address)
    expect(page.locator("#model")).to_contain_text("0.1.0")
    yield page
    others = [url for url in watch.requests if not url.startswith((f"{service.address}/", f"blob:{service.address}/"))]
    assert not others
    # Chromium itself notes each refusal by status, which the tests of bad pictures mean.
    assert not [text for text in watch.complaints if "the server responded with a status of 422" not in text]
    page.close()


def payload(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": data}


BRIGHT, DARK, DOUBTFUL = (payload(f"{name}.png", grey(v)) for name, v in (("bright", 240), ("dark", 10), ("mid", 150)))


def drop(page: Page, *files: FilePayload) -> None:
    """Drop files onto the middle of the page, as from a file manager."""
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const {name, bytes} of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            }
            return transfer;
        }""",
        [{"name": one["name"], "bytes": list(one["buffer"])} for one in files],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": transfer})


def test_chosen_pictures_are_answered_each_with_its_own(page: Page) -> None:
    page.locator("#files").set_input_files([BRIGHT, DARK, DOUBTFUL])
    results = page.locator(".result")
    expect(results).to_have_count(3)
    expect(results.nth(0).locator(".answer")).to_have_text("male: 94.1 %")
    expect(results.nth(1).locator(".answer")).to_have_text("female: 96.1 %")
    expect(results.nth(2).locator(".answer")).to_have_text("uncertain, rather male: 58.8 %")
    expect(results.nth(2)).to_contain_text("take it as no answer")
    expect(results.nth(0)).not_to_contain_text("uncertain")
    page.evaluate("Promise.all(document.getAnimations().map(growth => growth.finished)).then(() => null)")
    for place, share in ((0, 0.941), (1, 0.961), (2, 0.588)):
        bar = results.nth(place).locator(".bar")
        whole, part = bar.bounding_box(), bar.locator("div").bounding_box()
        assert whole is not None
        assert part is not None
        assert part["width"] / whole["width"] == pytest.approx(share, abs=0.01)
    assert [result.locator(".name").inner_text() for result in results.all()] == ["bright.png", "dark.png", "mid.png"]
    expect(page.get_by_role("status").first).to_have_text("3 pictures done.")
    page.get_by_role("button", name="Remove all").click()
    expect(results).to_have_count(0)
    page.locator("#files").set_input_files(BRIGHT)  # the same once more
    expect(results.locator(".answer")).to_have_text("male: 94.1 %")


def test_dropped_pictures_and_what_is_wrong_with_some_in_plain_words(page: Page) -> None:
    whole = picture(0)
    noise = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8), "PNG")
    drop(
        page,
        payload("note.txt", b"a note"),
        payload("empty.png", b""),
        payload("cut.jpg", whole[: len(whole) * 2 // 3]),
        payload("large.png", noise),
        payload("small.png", grey(10, side=31)),
        payload("good.png", grey(10)),
    )
    answers = page.locator(".result .answer")
    expect(answers).to_have_text([
        "This is no picture that can be read here. These can: JPEG, PNG, WEBP, BMP, GIF, TIFF.",
        "The file is empty.",
        "The file breaks off before the picture ends.",
        "The file is too large; up to 0.2 MB are taken.",
        "The picture is too small: each side needs at least 32 pixels.",
        "female: 96.1 %",
    ])  # fmt: skip
    expect(page.locator(".result.failed")).to_have_count(5)


FIRST_TABLE = [
    "setpicturesaccuracy95 % intervalrecall femalerecall male",
    "abroad2,50085\u00a0%83\u00a0% to 86\u00a0%74\u00a0%",
    "test40095.8\u00a0%94.8\u00a0% to 96.6\u00a0%95\u00a0%96.6\u00a0%",
]


def test_the_model_link_leads_to_a_page(page: Page, service: Served) -> None:
    expect(page.locator("#accepts")).to_contain_text("at least 32 pixels a side")
    page.get_by_role("link", name="Model", exact=True).click()
    expect(page).to_have_url(f"{service.address}/card")
    expect(page.locator("#figures tr")).to_have_text(FIRST_TABLE)
    figures = page.locator("#test tr")
    expect(figures.nth(0)).to_have_text("figurevalue95 % interval")
    expect(figures.nth(1)).to_have_text("accuracy95.8\u00a0%94.8\u00a0% to 96.6\u00a0%")
    expect(page.locator("#limits li strong")).to_have_text("Two labels are not what gender is.")
    facts = page.locator("#facts")
    for part in (
        "AlexNet",
        "female, male",
        "32 × 32 px",
        "below 80\u00a0%",
        "at least 32 pixels a side",
        "0123456789abcdef",
    ):
        expect(facts).to_contain_text(part)
    page.get_by_role("link", name="To the page").click()
    expect(page.locator("#drop")).to_be_visible()


def test_a_table_in_what_a_model_says_is_a_table(browser: BrowserContext, tmp_path: Path) -> None:
    limits = "## Sets\n| set | accuracy |\n|---|---:|\n| **test** | 0.9 |\n| <b>x</b> | `0.8` |\n\nAfter.\n| last |\n"
    with served(write_model(tmp_path / "model.onnx", {"limits": limits}), tmp_path) as running:
        page = browser.new_page()
        for path in ("", "card"):
            page.goto(f"{running.address}/{path}")
            expect(page.locator("#limits tr")).to_have_text(["setaccuracy", "test0.9", "<b>x</b>0.8", "last"])
            expect(page.locator("#limits th")).to_have_text(["set", "accuracy", "last"])
            expect(page.locator("#limits td strong")).to_have_text("test")
            expect(page.locator("#limits p")).to_have_text("After.")
        page.close()


def test_the_heat_map_is_drawn_over_the_part_that_decides(page: Page) -> None:
    page.locator("#files").set_input_files(payload("half.png", encode(_lit_quarter(), "PNG")))
    button = page.get_by_role("button", name="Show what it looked at in half.png")
    button.click()
    canvas = page.locator(".result canvas")
    expect(canvas).to_be_visible()
    expect(page.locator(".legend")).to_contain_text("(top left)")
    strongest = canvas.evaluate(
        """canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, 256, 256);
            return [[48, 48], [208, 48], [48, 208], [208, 208]].map(([x, y]) => data[4 * (256 * y + x) + 3]);
        }"""
    )
    assert strongest[0] > 100
    assert strongest[1:] == [0, 0, 0]
    over, picture = canvas.bounding_box(), page.locator(".result img").bounding_box()
    assert over == picture
    page.get_by_role("button", name="Hide what it looked at in half.png").click()
    expect(canvas).to_be_hidden()
    page.get_by_role("button", name="Show what it looked at in half.png").click()
    expect(canvas).to_be_visible()


def _lit_quarter() -> np.ndarray:
    pixels = np.full((40, 80, 3), 30, np.uint8)
    pixels[:20, :40] = 230
    return pixels


def test_by_keyboard_alone(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # from now on Chromium asks Playwright, not a person
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.locator("#drop").evaluate("drop => getComputedStyle(drop).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([BRIGHT])
    expect(page.locator(".answer")).to_have_text("male: 94.1 %")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "explain"
    page.keyboard.press("Space")
    expect(page.locator(".result canvas")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".result")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "files"


# Texts of one word, or of a number and its unit, that stand on more than one line.
BROKEN_CELLS = r"""[...document.querySelectorAll("th, td")].filter((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return !/[^\S\u00a0]/.test(cell.textContent) && range.getClientRects().length > 1;
}).map((cell) => cell.textContent)"""


@pytest.mark.parametrize("path", ["/", "/docs", "/card"])
def test_nothing_is_wider_than_a_phone(page: Page, service: Served, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(service.address + path)
    if path == "/":
        long_name = payload(f"{'a-very-long-name-' * 12}.png", grey(90))
        wide = payload("wide.png", encode(np.full((20, 900, 3), 90, np.uint8), "PNG"))
        page.locator("#files").set_input_files([long_name, wide, payload("note.txt", b"a note")])
        expect(page.locator(".bar:visible, .failed")).to_have_count(3)
    elif path == "/docs":
        expect(page.locator("article")).to_have_count(5)
    else:
        expect(page.locator("#facts tr")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('body *:not(.table *)')].map(e => e.getBoundingClientRect().right))"
    )
    assert widest <= 360 or path == "/docs"  # long lines scroll within their boxes there, as do tables
    if path != "/docs":
        assert page.locator("#figures .table").evaluate("box => box.scrollWidth > box.clientWidth")
        assert page.evaluate(BROKEN_CELLS) == []


def test_the_cards_limits_and_figures_are_on_the_page(page: Page) -> None:
    card = page.get_by_role("region", name="What the answers are worth")
    expect(card.locator("li")).to_have_count(2)
    expect(card.locator("li").first).to_have_text(
        "Two labels are not what gender is. It repeats how somebody labelled pictures; see README.md."
    )
    expect(card.locator("li strong")).to_have_text("Two labels are not what gender is.")
    expect(card.locator("tr")).to_have_text(FIRST_TABLE)


def test_a_model_that_names_no_sets_has_its_accuracy_in_words(browser: BrowserContext, tmp_path: Path) -> None:
    metrics = json.dumps({"accuracy": 0.958, "accuracy_low": 0.948, "accuracy_high": 0.966})
    with served(write_model(tmp_path / "model.onnx", {"metrics": metrics}), tmp_path) as running:
        page = browser.new_page()
        page.goto(running.address)
        expect(page.locator("#figures")).to_contain_text("right on 95.8 % (95 % interval 94.8 % to 96.6 %)")
        expect(page.locator("#figures table")).to_have_count(0)
        page.close()


def test_of_three_classes_each_is_named(browser: BrowserContext, service: Served) -> None:
    """The service's own answer, as a model of three classes and of a source with attributes would give it."""
    described = httpx.get(f"{service.address}/model").json() | {
        "classes": ["child", "low", "man"],
        "metrics": {
            "accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "recall_child": 0.99996, "recall_low": 1.0,
            "worst_group_balanced_accuracy": 0.7, "group_gap": 0.2, "group_gap_low": 0.1, "group_gap_high": 0.3,
            "unfamiliar_share": 0.0355, "nonfaces_unfamiliar_share": 1.0,
        },
    }  # fmt: skip
    page = browser.new_page()
    page.route("**/model", lambda route: route.fulfill(json=described))
    page.goto(service.address)
    expect(page.locator("#model")).to_contain_text("trained to tell “child”, “low” and “man” apart on tight face crops")
    page.goto(f"{service.address}/card")
    expect(page.locator("#test tr")).to_have_text([
        "figurevalue95 % interval",
        "accuracy90\u00a0%85\u00a0% to 94\u00a0%",
        "recall of child>99.99\u00a0%",
        "recall of low100\u00a0%",
        "balanced accuracy of the worst group70\u00a0%",
        "by which the best group is better20\u00a0%10\u00a0% to 30\u00a0%",
        "pictures marked as unfamiliar3.5\u00a0%",
        "pictures without a face marked as unfamiliar100\u00a0%",
    ])  # fmt: skip
    page.close()


def test_markup_in_a_name_is_text(page: Page) -> None:
    name = "<img src=x onerror=document.title=1>.png"
    page.locator("#files").set_input_files(payload(name, grey(90)))
    expect(page.locator(".name")).to_have_text(name)
    assert page.title() == "gender-classifier"


def test_markup_in_what_a_model_says_is_text(browser: BrowserContext, tmp_path: Path) -> None:
    odd = "</script><img src=x onerror=document.title=1>\n**<b>bold</b>** `<i>`"
    path = write_model(tmp_path / "model.onnx", {"version": odd, "data_digest": odd, "limits": odd})
    with served(path, tmp_path) as running:
        page = browser.new_page()
        page.goto(running.address)
        expect(page.locator("#model")).to_contain_text("<img src=x")
        expect(page.locator("#limits")).to_contain_text("<b>bold</b>")
        assert page.locator("#model img, #limits img, #limits b, #limits i").count() == 0
        assert page.title() == "gender-classifier"
        page.close()


def test_a_page_of_another_origin_cannot_use_the_service(
    browser: BrowserContext, service: Served, elsewhere: str
) -> None:
    """Another port of this machine: same-site to the browser, and still another origin."""
    page = browser.new_page()
    page.goto(elsewhere)
    read = page.evaluate(
        """async address => {
            const form = new FormData();
            form.append("images", new Blob(["x"]), "a.png");
            try { await fetch(`${address}/predict`, {method: "POST", mode: "no-cors", body: form}); } catch {}
            return fetch(`${address}/model`).then(() => true, () => false);
        }""",
        service.address,
    )
    assert not read
    page.close()
    assert 'gender_classifier_errors_total{reason="origin"} 1.0' in httpx.get(f"{service.address}/metrics").text


def test_dark_light_and_stillness_are_the_readers_choice(page: Page) -> None:
    colors = set()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colors) == 2
    page.locator("#files").set_input_files(BRIGHT)
    bar = page.locator(".bar div")
    expect(page.locator(".bar")).to_be_visible()
    assert bar.evaluate("bar => getComputedStyle(bar).transitionProperty") == "none"


def test_a_key_is_asked_for_and_a_wrong_one_again(browser: BrowserContext, model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path, GENDER_CLASSIFIER_API_KEY="open-sesame") as running:
        page = browser.new_page()
        page.goto(running.address)
        field = page.get_by_label("This service asks for its API key")
        expect(field).to_be_visible()
        page.locator("#files").set_input_files(BRIGHT)
        expect(page.locator(".answer")).to_have_text("waiting …")
        for key, is_right in (("wrong", False), ("open-sesame", True)):
            field.fill(key)
            field.press("Enter")
            expect(page.locator(".answer")).to_have_text("male: 94.1 %" if is_right else "waiting …")
            if not is_right:
                expect(page.locator("#status")).to_have_text("The API key is missing or wrong.")
        expect(field).to_be_hidden()
        page.close()


def test_pictures_for_the_readme(browser: BrowserContext, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """With --screenshots: drawn portraits before the model of this checkout."""
    folder = pytestconfig.getoption("--screenshots")
    if folder is None:
        pytest.skip("no --screenshots FOLDER")
    model = ROOT / "models" / "model.onnx"
    assert model.is_file(), f"{model}: no such file; run `dvc repro`"
    portraits = [data for name, data in draw_sample(7) if name.startswith("Validation/")]
    chosen = [portraits[place] for place in (0, 3, 205, 208)]
    with served(model, tmp_path) as running:
        page = browser.new_page()
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1200, "height": 1000})
        page.goto(running.address)
        page.locator("#files").set_input_files(
            [{"name": f"portrait-{n}.jpg", "mimeType": "image/jpeg", "buffer": one} for n, one in enumerate(chosen, 1)]
        )
        expect(page.locator(".bar:visible")).to_have_count(4)
        for place in (0, 2):
            page.locator(".explain").nth(place).click()
        expect(page.locator(".result canvas:visible")).to_have_count(2)
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / "page.png")
        page.close()
