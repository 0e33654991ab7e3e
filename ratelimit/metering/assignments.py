"""What operators assign at run time: a plan, a tenant or a block to a key, a plan to a tenant.

Assignments lie in two hashes of the store, one by key and one by tenant, and every limiter reads
them. A limiter holds all of them in memory, so a check costs no read. `refresh` reads them again
only when the counter beside them has changed.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic
from pydantic import ConfigDict, Field, StrictBool

from ratelimit.engine.layout import KEYS
from ratelimit.policy.assignment import Assignment, Assignments
from ratelimit.request.check import PlanText, TenantText, invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

logger = logging.getLogger("ratelimit")

COUNTER = f"{KEYS}@"
"""Store key of a number that grows with every assignment."""

Command = tuple[str, ...]
"""A command for the store."""

T = TypeVar("T", bound="BaseModel")


class KeyAssignment(pydantic.BaseModel):
    """What to assign to a key; what is left out is left to the policy.

    Attributes:
        plan: the key's plan.
        tenant: who owns the key.
        blocked: whether to deny every request of the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    plan: PlanText | None = None
    tenant: TenantText | None = None
    blocked: Annotated[StrictBool, Field(description="deny every request of the key")] = False


class TenantAssignment(pydantic.BaseModel):
    """What to assign to a tenant; what is left out is left to the policy.

    Attributes:
        plan: the plan of each key of the tenant that has none of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    plan: PlanText | None = None


def make_assignment(model: type[T], fields: dict[str, Any]) -> T:
    """Make an assignment from its fields.

    Raises:
        InvalidRequest: a field is unknown or wrong.
    """
    try:
        return model.model_validate(fields)
    except pydantic.ValidationError as error:
        raise invalid_request(error, model) from None


class _Tenant(pydantic.BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    tenant: TenantText


def check_tenant(tenant: str) -> str:
    """Return a tenant's name if it is one.

    Raises:
        InvalidRequest: it is not 1 to 256 visible ASCII characters.
    """
    return make_assignment(_Tenant, {"tenant": tenant}).tenant


def encode_assignment(
    store_key: str, name: str, assignment: KeyAssignment | TenantAssignment
) -> list[Command]:
    """Return the commands that store an assignment and change the counter.

    Args:
        store_key: the hash to write to, for keys or for tenants.
        name: the key or tenant.
        assignment: what to store; nothing is kept of an empty one.
    """
    fields = assignment.model_dump(exclude_defaults=True)
    write = ("HSET", store_key, name, json.dumps(fields)) if fields else ("HDEL", store_key, name)
    return [write, ("INCR", COUNTER)]


def read_assignments(keys: Mapping[bytes, bytes], tenants: Mapping[bytes, bytes]) -> Assignments:
    """Return every assignment of the store, from its two hashes."""
    by_key = {key: Assignment(**dict(assigned)) for key, assigned in _read_all(KeyAssignment, keys)}
    assigned_tenants = _read_all(TenantAssignment, tenants)
    by_tenant = {name: assigned.plan for name, assigned in assigned_tenants if assigned.plan}
    return Assignments(by_key, by_tenant)


def _read_all(model: type[T], stored: Mapping[bytes, bytes]) -> Iterator[tuple[str, T]]:
    """Yield what can be read. A newer version may have written fields that this one does not know."""
    for name, value in stored.items():
        try:
            fields = json.loads(value)
            known = {field: fields[field] for field in model.model_fields if field in fields}
            yield _decode(name), model.model_validate(known)
        except (ValueError, TypeError):
            logger.warning("an assignment in the store cannot be read, and is ignored")


def _decode(stored: bytes | str) -> str:
    return stored.decode() if isinstance(stored, bytes) else stored
