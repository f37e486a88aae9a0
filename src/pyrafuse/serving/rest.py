"""REST: `/predict`, `/models` and `/health` of a `Service`, with every error as JSON, and a page that lists them."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from pyrafuse import __version__
from pyrafuse.base.printable import printable
from pyrafuse.serving.asking import FormBody, JsonBody, Refusal
from pyrafuse.serving.reference import write_reference
from pyrafuse.serving.service import Health, Model, Service


class Object(BaseModel):
    """One detection; the box is xyxy in pixels of the image."""

    label: int
    name: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    level: int


class Answer(BaseModel):
    """The detections in an image, best first."""

    model: str
    height: int
    width: int
    objects: list[Object]
    notes: list[str]
    milliseconds: float


class Problem(BaseModel):
    """Why a request was not answered, in a sentence."""

    error: str


PROBLEMS: Mapping[int, str] = {
    400: "Wrong JSON or form, no image, an image that is damaged or cut off, an option that is wrong",
    404: "No such model",
    408: "The request did not arrive in time",
    413: "Too many bytes or too many pixels",
    415: "No image",
    503: "Too many requests at a time: try again",
    504: "The answer took too long",
}


def create_app(service: Service, *, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The routes of ``service``.

    Args:
        service: It is closed when the server ends.
        hosts: Names that this server answers to; by default any. Without them a page from elsewhere could make its
            reader's browser ask a server that listens on 127.0.0.1, by a name that leads there.
    """

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="pyrafuse",
        version=__version__,
        description="Object detection. Boxes are xyxy in pixels of the image that was sent.",
        docs_url=None,  # FastAPI's own pages come from the network
        redoc_url=None,
        lifespan=living,
    )
    if hosts:
        app.add_middleware(_OnlyNames, names=hosts)

    @app.post(
        "/predict",
        summary="Detect objects in one image.",
        responses={
            200: {"model": Answer},
            **{status: {"model": Problem, "description": text} for status, text in PROBLEMS.items()},
        },
        openapi_extra={"requestBody": _describe_bodies()},
    )
    async def predict(request: Request) -> JSONResponse:
        return JSONResponse(await service.answer(request))

    @app.get("/models", summary="List the models.")
    async def models() -> list[Model]:
        return service.models()

    @app.get("/health", summary="Tell whether the server answers.")
    async def health() -> Health:
        return service.health()

    @app.get("/docs", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(write_reference(app.openapi()))

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> JSONResponse:
        headers = {"Retry-After": "1"} if refusal.status == 503 else None
        return JSONResponse({"error": refusal.reason}, refusal.status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def tell(request: Request, error: HTTPException) -> JSONResponse:
        path = printable(request.scope["path"], limit=200)  # its URL fails where the query is no text in UTF-8
        reason = {
            404: f"there is nothing at {path}: /docs lists what there is",
            405: f"{path} does not take {request.method}: /docs says what it takes",
        }.get(error.status_code, error.detail)
        return JSONResponse({"error": reason}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"error": "the server failed: its log says why"}, 500)

    return app


class _OnlyNames:
    """Refuses requests for other names of this server than ``names``."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] in {"http", "websocket"}:
            asked = re.sub(r":\d*$", "", Headers(scope=scope).get("host", ""))
            if asked.lower() not in self._names:
                reason = (
                    f"this server answers to {', '.join(self._names)} alone, and the request names the host "
                    f"{printable(asked, limit=80)!r}: ask for one of these, or let the proxy send Host: localhost"
                )
                app = JSONResponse({"error": reason}, 400)
        await app(scope, receive, send)


def _describe_bodies() -> dict[str, Any]:
    """The three forms of a request, for OpenAPI."""
    whole = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _inline(FormBody)},
            "application/json": {"schema": _inline(JsonBody)},
            "image/*": whole,
        },
    }


def _inline(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template="#/components/schemas/{model}")
