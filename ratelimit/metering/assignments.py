"""What operators assign to keys at run time: a plan, a tenant, or a closed door.

Assignments lie in one hash of the store, field by key, for every sidecar to read. A
limiter holds them all in memory, so that a check costs no read; `refresh` asks for
them again, and is cheap while a counter beside them stands still.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import ConfigDict, Field, StrictBool

from ratelimit.engine.layout import KEYS
from ratelimit.policy.policy import Assignment
from ratelimit.request.check import PlanText, TenantText, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("ratelimit")

COUNTER = f"{KEYS}@"
"""Grows with every assignment."""


class Assign(pydantic.BaseModel):
    """What to assign to a key; what is left out is left to the policy.

    Attributes:
        plan: the key's plan.
        tenant: who owns the key.
        blocked: refuse every request of the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    plan: PlanText | None = None
    tenant: TenantText | None = None
    blocked: Annotated[StrictBool, Field(description="refuse every request of the key")] = False


def make_assign(fields: dict[str, Any]) -> Assign:
    """Make an assignment from its fields.

    Raises:
        InvalidRequest: a field is unknown or wrong.
    """
    try:
        return Assign.model_validate(fields)
    except pydantic.ValidationError as error:
        raise invalid(error, Assign) from None


def write(assign: Assign) -> str | None:
    """Return an assignment as it is stored; None where nothing is assigned and nothing needs storing."""
    told = assign.model_dump(exclude_defaults=True)
    return json.dumps(told) if told else None


def read(stored: Mapping[bytes, bytes]) -> dict[str, Assignment]:
    """Return every assignment of the store by key."""
    return {_text(key): _read_one(_text(value)) for key, value in stored.items()}


def _read_one(value: str) -> Assignment:
    """Take what we know of an assignment: a newer version may have written more, and anyone anything."""
    try:
        told = json.loads(value)
        known = {name: told[name] for name in Assign.model_fields if name in told}
        return Assignment(**dict(Assign.model_validate(known)))
    except (ValueError, TypeError):
        logger.warning("an assignment in the store cannot be read, and is left out")
        return Assignment()


def _text(stored: bytes | str) -> str:
    return stored.decode() if isinstance(stored, bytes) else stored
