"""Assignments at run time: an operator gives a key a plan or a tenant, blocks it, or gives a tenant a plan.

The store keeps assignments in two hashes, one for keys and one for tenants. Each limiter reads them
all into memory, so a check does not read them. `refresh` reads them again only if the counter of
assignments in the store has changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic
from pydantic import ConfigDict, Field, StrictBool

from ratelimit.policy.assignment import Assignment, Assignments
from ratelimit.request.check import PlanText, TenantText, invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

    from ratelimit.engine.keyspace import Keyspace

logger = logging.getLogger("ratelimit")

Command = tuple[str, ...]
"""A command for the store."""

StoredHash = Mapping[bytes, bytes] | list[bytes]
"""A reply to HGETALL: fields and values in turn, or a mapping by clients that make one of it."""

_Model = TypeVar("_Model", bound="BaseModel")


class KeyAssignment(pydantic.BaseModel):
    """What to assign to a key. The policy applies to what is left out.

    Attributes:
        plan: the key's plan.
        tenant: the account that owns the key.
        blocked: whether to deny all checks of the key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    plan: PlanText | None = None
    tenant: TenantText | None = None
    blocked: Annotated[StrictBool, Field(description="whether to deny all checks of the key")] = False


class TenantAssignment(pydantic.BaseModel):
    """What to assign to a tenant. The policy applies to what is left out.

    Attributes:
        plan: the plan of those keys of the tenant that have no plan of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    plan: PlanText | None = None


def make_assignment(model: type[_Model], fields: dict[str, Any]) -> _Model:
    """Make an assignment from its fields.

    Raises:
        InvalidRequest: a field is unknown or wrong.
    """
    try:
        return model.model_validate(fields)
    except pydantic.ValidationError as error:
        raise invalid_request(error, model) from None


class _TenantName(pydantic.BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    tenant: TenantText


def check_tenant(tenant: str) -> str:
    """Return a tenant's name if it is valid.

    Raises:
        InvalidRequest: the name is not 1 to 256 visible ASCII characters.
    """
    return make_assignment(_TenantName, {"tenant": tenant}).tenant


def encode_assignment(
    keyspace: Keyspace, name: str, assignment: KeyAssignment | TenantAssignment
) -> list[Command]:
    """Return the commands that store an assignment and increment the counter.

    Args:
        keyspace: the store keys.
        name: the key or tenant.
        assignment: what to store. An empty assignment deletes the stored one.
    """
    store_key = keyspace.keys if isinstance(assignment, KeyAssignment) else keyspace.tenants
    fields = assignment.model_dump(exclude_defaults=True)
    write = ("HSET", store_key, name, json.dumps(fields)) if fields else ("HDEL", store_key, name)
    return [write, ("INCR", keyspace.counter)]


def read_assignments(keys: StoredHash, tenants: StoredHash) -> Assignments:
    """Return all assignments, from the replies to HGETALL of the two hashes of the store."""
    by_key = {
        key: Assignment(**dict(assigned)) for key, assigned in _read_valid_assignments(KeyAssignment, keys)
    }
    assigned_tenants = _read_valid_assignments(TenantAssignment, tenants)
    by_tenant = {name: assigned.plan for name, assigned in assigned_tenants if assigned.plan}
    return Assignments(by_key, by_tenant)


def _read_valid_assignments(model: type[_Model], stored: StoredHash) -> Iterator[tuple[str, _Model]]:
    """Yield all valid assignments, without fields that only a newer version knows."""
    for name, value in make_pairs(stored):
        try:
            fields = json.loads(value)
            known = {field: fields[field] for field in model.model_fields if field in fields}
            yield _decode_text(name), model.model_validate(known)
        except (ValueError, TypeError):
            logger.warning("an assignment in the store cannot be read, and is ignored")


def make_pairs(stored: StoredHash) -> Iterable[tuple[bytes, bytes]]:
    """Return the fields and values of a reply to HGETALL."""
    if isinstance(stored, list):
        items = iter(stored)
        return zip(items, items, strict=True)
    return stored.items()


def _decode_text(stored: bytes | str) -> str:
    return stored.decode() if isinstance(stored, bytes) else stored
