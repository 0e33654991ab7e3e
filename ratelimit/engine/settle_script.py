"""Encodes calls of lua/settle.lua, which settle or end reservations, and decodes its replies. No I/O."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ratelimit.decision.settlement import Settlement
from ratelimit.engine.check_script import ScriptArgument, pack_header, text_of
from ratelimit.engine.layout import UNREAD, USAGE, make_tenant_prefix
from ratelimit.engine.limit_status import evaluate_settled_limit, make_limit_state
from ratelimit.engine.reservation_id import find_record_store_key, find_reservation_tenant
from ratelimit.engine.reservation_record import encode_record, read_record
from ratelimit.errors import UnknownReservation
from ratelimit.request.check import invalid_field, make_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.reservation_record import RecordedLimit
    from ratelimit.engine.resolver import ResolvedCheck, Resolver
    from ratelimit.request.usage import Usage

SettleAction = Literal["settle", "cancel", "release"]
"""What a call of lua/settle.lua does with a reservation."""

_STREAM_STRUCT: Final = Struct("<2d")


class SettleOptions(NamedTuple):
    """What all settlements of a limiter have in common.

    Attributes:
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        remember: milliseconds for which a repeated settlement gets the same answer.
        usage_length: how many usage records the stream keeps; 0 for no stream.
        usage_age: milliseconds for which it keeps a usage record.
    """

    max_skew: int | None
    remember: int
    usage_length: int
    usage_age: int


class SettleCall(NamedTuple):
    """One call of lua/settle.lua.

    Attributes:
        keys: KEYS of the script.
        args: ARGV of the script.
        tenant: the tenant of the reservation or of the usage record.
        usage: the usage record; None to cancel or release.
        ends: whether it ends a request: it settles or cancels, and does not return a lease.
    """

    keys: list[str]
    args: list[ScriptArgument]
    tenant: str
    usage: Usage | None = None
    ends: bool = False


class SettleReply(NamedTuple):
    """What a reply of lua/settle.lua says.

    Attributes:
        settlement: the settlement for the user.
        key: the API key's identifier.
        tenant: the account that owns the key.
        plan: the plan that was charged.
        model: the model that the check named. The usage record may name another one.
        limits: the limits, with their states after it.
    """

    settlement: Settlement
    key: str
    tenant: str
    plan: str
    model: str | None
    limits: tuple[RecordedLimit, ...]


def encode_settle(resolver: Resolver, usage: Usage, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua for a usage record, with a reservation or a key.

    Raises:
        InvalidRequest: the record has neither a reservation nor a key, or a unit that no plan meters.
        UnknownReservation: its reservation cannot be the id of a reservation.
    """
    resolver.refuse_unmetered_units(usage.cost)
    if usage.reservation is not None:
        keys, tenant = _find_record(usage.reservation)
        subject = usage.reservation
    else:
        check = _resolve_usage(resolver, usage)
        keys, tenant = [USAGE, UNREAD], check.subject.tenant
        subject = _encode_charged(check)
    known = usage.known()
    units = [argument for unit, amount in known.items() for argument in (unit, amount)]
    # The script adds the tenant and the plan that were charged.
    fields = {name: text for name, text in usage.fields().items() if name not in {"tenant", "plan"}}
    entry = [argument for pair in fields.items() for argument in pair]
    head = _encode_head("settle", subject, tenant, options, usage)
    return SettleCall(keys, [*head, len(known), *units, *entry], tenant, usage, ends=True)


def encode_reservation_end(action: SettleAction, reservation: str, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua to cancel a reservation, or to release its slots.

    Args:
        action: `cancel` or `release`.
        reservation: its id.
        options: what all settlements have in common.

    Raises:
        UnknownReservation: this cannot be the id of a reservation.
    """
    keys, tenant = _find_record(reservation)
    head = _encode_head(action, reservation, tenant, options)
    return SettleCall(keys, [*head, 0], tenant, ends=action == "cancel")


def encode_charge(check: ResolvedCheck, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua to charge the costs of `check`, even below empty.

    It writes no usage record. To the script it is the cancellation of a check with the opposite costs.
    """
    return encode_lease_return(check.with_costs(tuple(-cost for cost in check.costs)), options)


def encode_lease_return(check: ResolvedCheck, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua to return what is left of a lease: the costs of `check`."""
    tenant = check.subject.tenant
    head = _encode_head("cancel", _encode_charged(check), tenant, options)
    return SettleCall([USAGE, UNREAD], [*head, 0], tenant)


def _encode_head(
    action: SettleAction, subject: str, tenant: str, options: SettleOptions, usage: Usage | None = None
) -> list[ScriptArgument]:
    """Return ARGV from 1 to 10."""
    timestamp = usage.timestamp if usage else None
    return [
        pack_header(options.max_skew),
        "" if timestamp is None else timestamp,
        action,
        options.remember,
        int(usage is not None and usage.failed),
        subject,
        _STREAM_STRUCT.pack(options.usage_length, options.usage_age),
        (usage.key if usage else None) or "",
        tenant,
        make_tenant_prefix(tenant),
    ]


def _find_record(reservation: str) -> tuple[list[str], str]:
    """Return KEYS and the tenant of a reservation."""
    tenant, store_key = find_reservation_tenant(reservation), find_record_store_key(reservation)
    if tenant is None or store_key is None:
        raise UnknownReservation
    return [USAGE, UNREAD, store_key], tenant


def _encode_charged(check: ResolvedCheck) -> str:
    """Return the subject and limits of a check that all limits are charged for."""
    return encode_record(check, "1" * len(check.costs))


def _resolve_usage(resolver: Resolver, usage: Usage) -> ResolvedCheck:
    """Resolve a usage record without a reservation, as a check with the same key, plan, model and tenant."""
    if usage.key is None:
        raise invalid_field("key", "required without a reservation")
    usage_check = make_check(
        {
            "key": usage.key,
            "plan": usage.plan,
            "model": usage.model,
            "tenant": usage.tenant,
            "cost": {"requests": 0},
        }
    )
    return resolver.resolve(usage_check, take=True)


def read_settlement(call: SettleCall, reply: Sequence[bytes | str]) -> SettleReply:
    """Return what the script's reply to a call says.

    Raises:
        UnknownReservation: the store has no such reservation, or no longer remembers it.
        InvalidRequest: the reservation belongs to another key.
    """
    outcome, replayed, packed = text_of(reply[0]), text_of(reply[1]), reply[2]
    if outcome == "unknown":
        raise UnknownReservation
    if outcome == "mismatch":
        raise invalid_field("key", "is not the key of this reservation")
    record = read_record(packed if isinstance(packed, bytes) else packed.encode("latin-1"), call.tenant)
    states = tuple(_make_limit_state(limit, record.t) for limit in record.limits if limit.admitted)
    return SettleReply(
        Settlement(outcome == "settled", replayed == "1", states),
        record.key,
        call.tenant,
        record.plan,
        record.model,
        record.limits,
    )


def _make_limit_state(limit: RecordedLimit, t: int) -> LimitState:
    status = evaluate_settled_limit(limit.kind, limit.shape, limit.state, t)
    return make_limit_state(limit.name, limit.unit, limit.kind, limit.shape, limit.mode, status)
