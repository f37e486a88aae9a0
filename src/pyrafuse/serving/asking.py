"""A request to `/predict` as an image and options: body within limits -> multipart, JSON or image -> `Asked`."""

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from pyrafuse.base.printable import printable

MAX_FIELDS = 100
"""So many fields of a form are read."""

Name = Annotated[str, Field(max_length=200)]


class Refusal(Exception):  # noqa: N818  # an answer, and no fault of ours
    """A request that is not answered, and why.

    Attributes:
        status: HTTP status.
        reason: A sentence for whoever asked.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Options(BaseModel):
    """What may be asked for beside the image."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(None, description="Name of the model, as /models lists them; by default the first.")
    score: float | None = Field(None, ge=0, le=1, description="Least score that is kept, 0..1.")
    classes: list[Name | int] | None = Field(
        None, max_length=10_000, description="Names or numbers of classes; by default all."
    )
    nms_iou: float | None = Field(None, ge=0, le=1, description="Overlap above which two boxes are one object.")
    max_detections: int | None = Field(None, ge=1, le=100_000, description="Largest number of detections.")


class JsonBody(Options):
    """The body of a request in JSON."""

    image: str = Field(description="The bytes of an image file in base64, as a data URL if you like.")


class FormBody(Options):
    """The fields of a request as multipart/form-data."""

    image: bytes = Field(description="An image file.", json_schema_extra={"format": "binary"})


@dataclass(frozen=True)
class Asked:
    """An image file, its name, and what is asked of it."""

    data: bytes
    name: str
    options: Options


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of ``request``.

    Raises:
        Refusal: If it is larger than ``max_bytes``, compressed, or ends early.
    """
    too_large = Refusal(413, f"the request is larger than {max_bytes:,} bytes: send a smaller image file")
    if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise Refusal(415, f"the content encoding is {printable(coding, limit=80)}: send the request uncompressed")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for block in request.stream():
            body += block
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect as error:
        raise Refusal(400, "the connection ended before the whole request had arrived") from error
    return bytes(body)


async def read_asked(request: Request, body: bytes) -> Asked:
    """What ``request`` with this ``body`` asks for.

    Raises:
        Refusal: If there is no image in it, an option is unknown or wrong, or it is of another content type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    given: dict[str, Any] = dict(request.query_params)
    if classes := request.query_params.getlist("classes"):
        given["classes"] = classes
    if kind == "application/json":
        return _of_json(body, given)
    if kind == "multipart/form-data":
        return await _of_form(request, body, given)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _checked(body, "the image", given)
    raise Refusal(
        415,
        f"the content type is {printable(kind, limit=80) or 'not given'}: send multipart/form-data with a field image, "
        "application/json with image in base64, or the bytes of an image as image/jpeg or image/png",
    )


def _of_json(body: bytes, given: Mapping[str, Any]) -> Asked:
    try:
        read = JsonBody.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(400, f"the JSON is wrong: {_tell(error)}") from error
    text = read.image
    if text[:100].lstrip().lower().startswith(("http://", "https://", "file://")):
        raise Refusal(400, "image is a URL, and URLs are not fetched: send the bytes of the image in base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode("".join(text.split()), validate=True)  # tools break lines
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"image is no base64: {error}") from error
    return _checked(data, "the image", {**given, **read.model_dump(exclude={"image"}, exclude_unset=True)})


async def _of_form(request: Request, body: bytes, given: dict[str, Any]) -> Asked:
    async def blocks() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, blocks(), max_files=2, max_fields=MAX_FIELDS).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = printable(getattr(error, "message", None) or error, limit=200)
        raise Refusal(400, f"the form cannot be read: {reason}") from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Refusal(400, f"the form has {len(files)} files: send one image a request, in a field named image")
        for name in {name for name, value in form.multi_items() if isinstance(value, str)}:
            values = form.getlist(name)
            given[name] = values if name == "classes" else values[-1]
        return _checked(await files[0].read(), printable(files[0].filename or "the image", limit=120), given)
    finally:
        await form.close()


def _checked(data: bytes, name: str, given: Mapping[str, Any]) -> Asked:
    if not data:
        raise Refusal(400, "there is no image in the request: its bytes are empty")
    try:
        return Asked(data, name, Options.model_validate(given))
    except ValidationError as error:
        raise Refusal(400, f"an option is wrong: {_tell(error)}") from error


def _tell(error: ValidationError) -> str:
    """The first faults in one sentence, without the value: that may be a whole image."""
    told = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        place = ".".join(map(str, fault["loc"]))
        message = fault["msg"]
        if fault["type"] == "extra_forbidden":
            message = f"there is no such option; choose from {', '.join(Options.model_fields)}"
        told.append(printable(f"{place}: {message}" if place else message, limit=300))
    return "; ".join(told)
