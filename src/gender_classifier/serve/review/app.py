"""The pages' requests: the list of suspects, their images, decisions and their undoing.

Only the page's own files are answered without the token, which the command prints in its address. The page reads it
from the part after ``#``, which browsers keep to themselves, and sends it as a header, which no other page can set.
"""

from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gender_classifier.common.terminal import describe_os_error
from gender_classifier.errors import GenderClassifierError
from gender_classifier.serve.assets import serve_file
from gender_classifier.serve.guard import Guard, Key
from gender_classifier.serve.middleware import Frame, Metrics, build_failure
from gender_classifier.serve.review.session import Review
from gender_classifier.serve.review.suspects import Suspect
from gender_classifier.serve.uploads import RequestError

PAGE = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}  # file and media type of each path

_PRIVATE = {"Cache-Control": "no-store"}


def build_review_app(review: Review, token: str, max_pixels: int) -> FastAPI:
    """Build the ASGI application.

    Args:
        review: of the data set.
        token: required for all but the page's own files.
        max_pixels: larger images are not decoded.
    """
    metrics, key = Metrics(), Key(token)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Guard, allowed_hosts=None, metrics=metrics)
    app.add_middleware(Frame, metrics=metrics, paths=PAGE)
    _add_error_answers(app)
    for path, (name, media_type) in PAGE.items():
        app.get(path)(serve_file(name, media_type))

    async def check_token(request: Request) -> None:
        if not key.is_sent_by(request):
            raise RequestError(401, "no_key", "open the address that `gender-classifier review` printed, to its end")

    def find(sha256: str) -> Suspect:
        if suspect := review.find(sha256):
            return suspect
        raise RequestError(404, "not_found", f"{sha256[:80]!r} is the SHA-256 of no suspect; reload the page")

    # Plain functions run in threads: decoding, and waiting for the disk, hold up no other request.
    def list_suspects() -> Response:
        decided = [asdict(suspect) | {"decision": label} for suspect, label in review.list_decided()]
        listed = [asdict(suspect) for suspect in review.list_open()]
        return JSONResponse({"classes": review.classes, "open": listed, "decided": decided}, headers=_PRIVATE)

    def show(sha256: str) -> Response:
        return Response(review.render(find(sha256), max_pixels), media_type="image/png", headers=_PRIVATE)

    def decide(sha256: str, label: str) -> dict[str, int]:
        return {"left": review.decide(find(sha256), label)}

    def undo(sha256: str) -> dict[str, int]:
        return {"left": review.undo(find(sha256))}

    guarded: dict[str, Any] = {"dependencies": [Depends(check_token)]}
    app.get("/suspects", **guarded)(list_suspects)
    app.get("/images/{sha256}", **guarded)(show)
    app.put("/decisions/{sha256}", **guarded)(decide)
    app.delete("/decisions/{sha256}", **guarded)(undo)
    return app


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return build_failure(error.status, error.reason, str(error), error.headers)

    @app.exception_handler(GenderClassifierError)
    async def explain(_: Request, error: GenderClassifierError) -> Response:
        return build_failure(409, "not_done", str(error))

    @app.exception_handler(OSError)
    async def explain_disk(_: Request, error: OSError) -> Response:
        return build_failure(507, "not_done", describe_os_error(error))

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.scope['path'][:100]}: {error.detail}"
        return build_failure(error.status_code, "refused", message, dict(error.headers or {}))
