"""Request bodies: bounded, and read into the library's own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import pydantic
from pydantic import Field

from ratelimit import Check, Usage
from ratelimit.metering.assignments import KeyAssignment, TenantAssignment
from ratelimit.request.check import MAX_BATCH, invalid_request
from service.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY: Final = 64 * 1024

T = TypeVar("T")

ONE = pydantic.TypeAdapter(Check)
MANY = pydantic.TypeAdapter(Annotated[list[Check], Field(max_length=MAX_BATCH)])
USAGE = pydantic.TypeAdapter(Usage)
KEY_ASSIGNMENT = pydantic.TypeAdapter(KeyAssignment)
TENANT_ASSIGNMENT = pydantic.TypeAdapter(TenantAssignment)


def takes(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a body that the route reads itself, so that it is bounded and parsed only once."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read(
    request: Request, schema: pydantic.TypeAdapter[T], model: type[pydantic.BaseModel] = Check
) -> T:
    """Read the body as JSON of a schema, whose fields are those of `model`.

    Raises:
        Problem: 413 over 64 KiB, 400 where it is not JSON.
        InvalidRequest: a field is wrong or not listed.
    """
    body = await _bounded(request)
    try:
        return schema.validate_json(body)
    except pydantic.ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise Problem(400, "the body is not JSON") from None
        raise invalid_request(error, model) from None


async def _bounded(request: Request) -> bytearray:
    for name, value in request.scope["headers"]:  # of all there are, only this one is wanted
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            raise _too_large()
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the body ended early")  # nobody reads this any more
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
        more = message.get("more_body", False)
    return body


def _too_large() -> Problem:
    # The rest of the body stays unread, so the connection cannot carry another request.
    return Problem(413, f"the body is over {MAX_BODY // 1024} KiB", headers={"Connection": "close"})
