"""Files of the pages, from the package."""

from collections.abc import Callable
from importlib import resources
from typing import Any

from starlette.responses import Response


def serve_file(name: str, media_type: str) -> Callable[[], Any]:
    """Return an endpoint that answers with a file of ``page/``."""
    content = (resources.files("gender_classifier.serve") / "page" / name).read_bytes()

    async def serve() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return serve
