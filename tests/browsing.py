"""A real browser for the tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, ViewportSize, expect, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_TIMEOUT = 60_000  # ms; another suite may run beside


@contextmanager
def open_browser(profile: Path, viewport: ViewportSize | None = None) -> Iterator[BrowserContext]:
    """Start the installed Chromium with the empty folder ``profile``."""
    chromium = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert chromium, "chromium: no such program; install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=_FLAGS, viewport=viewport
        )
        browser.set_default_timeout(_TIMEOUT)
        expect.set_options(timeout=_TIMEOUT)
        yield browser
        browser.close()


class Watch:
    """What a page asks for, and what its console says."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._note_request)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)
