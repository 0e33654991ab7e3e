"""Read request bodies: limited in size, and validated with the library's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import pydantic
from pydantic import Field

from ratelimit import Check, Usage
from ratelimit.metering.assignments import KeyAssignment, TenantAssignment
from ratelimit.request.check import MAX_BATCH, invalid_request
from ratelimit.web.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY: Final = 64 * 1024
"""Bytes."""

T = TypeVar("T")

CHECK = pydantic.TypeAdapter(Check)
CHECKS = pydantic.TypeAdapter(Annotated[list[Check], Field(max_length=MAX_BATCH)])
USAGE = pydantic.TypeAdapter(Usage)
KEY_ASSIGNMENT = pydantic.TypeAdapter(KeyAssignment)
TENANT_ASSIGNMENT = pydantic.TypeAdapter(TenantAssignment)


def describe_body(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description of a body.

    FastAPI does not know these bodies: routes call `read_body` themselves, so that a body is limited in
    size and parsed only once.
    """
    schema = {name: value for name, value in schema.items() if name != "$defs"}  # all are in their place
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read_body(
    request: Request, schema: pydantic.TypeAdapter[T], model: type[pydantic.BaseModel] = Check
) -> T:
    """Read the body as JSON and validate it.

    Args:
        request: the request.
        schema: what the body must be.
        model: the model whose fields an error lists as allowed.

    Raises:
        Problem: 413 if the body is over 64 KiB, 400 if it is not JSON.
        InvalidRequest: a field is wrong or not listed.
    """
    body = await _read_limited(request)
    try:
        return schema.validate_json(body)
    except pydantic.ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise Problem(400, "the body is not JSON") from None
        raise invalid_request(error, model) from None


async def _read_limited(request: Request) -> bytearray:
    # Not `request.headers`, which is made of all headers: only this one is needed.
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            raise _too_large()
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            # The client has disconnected and receives no response; the error only ends the request.
            raise Problem(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
        more = message.get("more_body", False)
    return body


def _too_large() -> Problem:
    # The rest of the body stays unread, so the connection cannot carry another request.
    return Problem(413, f"the body is over {MAX_BODY // 1024} KiB", headers={"Connection": "close"})
