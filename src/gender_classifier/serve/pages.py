"""The service's page for people, and those that describe its model and its API."""

from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Any

from fastapi import FastAPI, Response

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/common.js": ("common.js", "text/javascript; charset=utf-8"),
    "/card": ("card.html", "text/html; charset=utf-8"),
    "/card.js": ("card.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
"""File and media type of each path."""


def add_page(app: FastAPI) -> None:
    """Serve the files of the pages; they are read once."""
    for path, (name, media_type) in PAGE.items():
        app.add_api_route(path, _serve_file(name, media_type), include_in_schema=False)


def _serve_file(name: str, media_type: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    content = (resources.files("gender_classifier.serve") / "page" / name).read_bytes()

    async def serve() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return serve
