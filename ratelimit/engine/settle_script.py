"""Encodes calls of lua/settle.lua, which settle or end reservations, and decodes its replies. No I/O."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ratelimit.decision.settlement import Settlement
from ratelimit.engine.check_script import ScriptArgument, pack_header, text_of
from ratelimit.engine.keyspace import make_record_store_key, make_shared_prefix
from ratelimit.engine.limit_status import (
    evaluate_settled_limit,
    make_limit_state,
)
from ratelimit.engine.parts import split_check
from ratelimit.engine.reservation_id import parse_reservation_id
from ratelimit.engine.reservation_record import encode_record, read_record
from ratelimit.errors import UnknownReservation
from ratelimit.request.check import invalid_field, make_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.keyspace import Keyspace
    from ratelimit.engine.reservation_record import RecordedLimit
    from ratelimit.engine.resolver import ResolvedCheck, Resolver
    from ratelimit.request.usage import Usage

SettleAction = Literal["settle", "cancel", "release", "refund"]
"""What a call of lua/settle.lua does with a reservation."""

_STREAM_STRUCT: Final = Struct("<2d")


class SettleOptions(NamedTuple):
    """What all settlements of a limiter have in common.

    Attributes:
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        remember: milliseconds for which a repeated settlement gets the same answer.
        usage_length: how many usage records a stream keeps; 0 for no stream.
        usage_age: milliseconds for which it keeps a usage record.
    """

    max_skew: int | None
    remember: int
    usage_length: int
    usage_age: int


class ScriptCall(NamedTuple):
    """One call of a script.

    Attributes:
        keys: KEYS of the script.
        args: ARGV of the script.
        prefix: the start of the store keys of the limits that it charges.
    """

    keys: list[str]
    args: list[ScriptArgument]
    prefix: str


class SettleCall(NamedTuple):
    """A settlement: one call of lua/settle.lua.

    On a cluster a second call follows for the limits that everyone shares. If the process dies between the
    two, these keep the estimate; settling again makes up for it.

    Attributes:
        calls: the calls, in order.
        tenant: the tenant of the reservation or of the usage record.
        usage: the usage record; None to cancel or release.
        ends: whether it ends a request: it settles or cancels, and does not return a lease.
        reservation: the reservation; None to charge without one.
    """

    calls: tuple[ScriptCall, ...]
    tenant: str
    usage: Usage | None = None
    ends: bool = False
    reservation: str | None = None


class SettleReply(NamedTuple):
    """What a reply of lua/settle.lua says.

    Attributes:
        settlement: the settlement for the user.
        key: the API key's identifier.
        tenant: the account that owns the key.
        plan: the plan that was charged.
        model: the model that the check named. The usage record may name another one.
        limits: the limits, with their states after it.
        t: the time of the charge, microseconds since the epoch.
    """

    settlement: Settlement
    key: str
    tenant: str
    plan: str
    model: str | None
    limits: tuple[RecordedLimit, ...]
    t: int


def encode_settle(resolver: Resolver, usage: Usage, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua for a usage record, with a reservation or a key.

    Raises:
        InvalidRequest: the record has neither a reservation nor a key, or a unit that no plan meters.
        UnknownReservation: its reservation cannot be the id of a reservation.
    """
    resolver.refuse_unmetered_units(usage.cost)
    known = usage.known()
    units = [argument for unit, amount in known.items() for argument in (unit, amount)]
    # The script adds the tenant and the plan that were charged.
    fields = {name: text for name, text in usage.fields().items() if name not in {"tenant", "plan"}}
    entry = [argument for pair in fields.items() for argument in pair]
    tail: list[ScriptArgument] = [len(known), *units, *entry]
    if usage.reservation is not None:
        return _encode_by_reservation("settle", usage.reservation, resolver, options, tail, usage)
    check = _resolve_usage(resolver, usage)
    calls = _encode_by_check("settle", check, resolver.keyspace, options, tail, usage)
    return SettleCall(calls, check.subject.tenant, usage, ends=True)


def encode_reservation_end(
    action: SettleAction, reservation: str, resolver: Resolver, options: SettleOptions
) -> SettleCall:
    """Return the call of lua/settle.lua to cancel a reservation, or to release its slots.

    Args:
        action: `cancel` or `release`.
        reservation: its id.
        resolver: the policy and the store keys.
        options: what all settlements have in common.

    Raises:
        UnknownReservation: this cannot be the id of a reservation.
    """
    return _encode_by_reservation(action, reservation, resolver, options, [0], None)


def encode_charge(check: ResolvedCheck, keyspace: Keyspace, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua to charge the costs of `check`, even below empty.

    It writes no usage record. To the script it is the cancellation of a check with the opposite costs.
    """
    return encode_lease_return(check.with_costs(tuple(-cost for cost in check.costs)), keyspace, options)


def encode_lease_return(check: ResolvedCheck, keyspace: Keyspace, options: SettleOptions) -> SettleCall:
    """Return the call of lua/settle.lua to return what is left of a lease: the costs of `check`."""
    calls = _encode_by_check("cancel", check, keyspace, options, [0], None)
    return SettleCall(calls, check.subject.tenant)


def _encode_by_reservation(
    action: SettleAction,
    reservation: str,
    resolver: Resolver,
    options: SettleOptions,
    tail: list[ScriptArgument],
    usage: Usage | None,
) -> SettleCall:
    parsed = parse_reservation_id(reservation)
    if parsed is None:
        raise UnknownReservation
    keyspace, tenant = resolver.keyspace, parsed.tenant
    prefixes = [keyspace.make_prefix(tenant)]
    if keyspace.shards and resolver.has_shared_limits:
        prefixes.append(make_shared_prefix(tenant))
    calls = []
    for prefix in prefixes:
        keys = keyspace.make_usage_store_keys(prefix)
        head = encode_head(action, reservation, tenant, prefix, options, usage)
        calls.append(ScriptCall([*keys, make_record_store_key(prefix, parsed.token)], [*head, *tail], prefix))
        options = options._replace(usage_length=0)  # There is one usage record, with the tenant's limits.
    return SettleCall(tuple(calls), tenant, usage, action != "release", reservation)


def _encode_by_check(
    action: SettleAction,
    check: ResolvedCheck,
    keyspace: Keyspace,
    options: SettleOptions,
    tail: list[ScriptArgument],
    usage: Usage | None,
) -> tuple[ScriptCall, ...]:
    """Return the calls that charge all limits of a check."""
    calls = []
    for part in (split_check(check) if keyspace.shards else None) or (check,):
        if usage is None and not part.costs:
            continue
        prefix, tenant = part.subject.prefix, part.subject.tenant
        subject = encode_record(part, "1" * len(part.costs))
        head = encode_head(action, subject, tenant, prefix, options, usage)
        calls.append(ScriptCall(keyspace.make_usage_store_keys(prefix), [*head, *tail], prefix))
        options = options._replace(usage_length=0)
    return tuple(calls)


def encode_head(
    action: SettleAction,
    subject: str,
    tenant: str,
    prefix: str,
    options: SettleOptions,
    usage: Usage | None = None,
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
        prefix,
    ]


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


def read_settlement(call: SettleCall, replies: Sequence[Sequence[bytes | str]]) -> SettleReply:
    """Return what the script's replies to a settlement say.

    Raises:
        UnknownReservation: the store has no such reservation, or no longer remembers it.
        InvalidRequest: the reservation belongs to another key.
    """
    outcome, replayed = text_of(replies[0][0]), text_of(replies[0][1])
    if outcome == "unknown":
        raise UnknownReservation
    if outcome == "mismatch":
        raise invalid_field("key", "is not the key of this reservation")
    records = [
        read_record(
            packed if isinstance(packed, bytes) else packed.encode("latin-1"), call.tenant, part.prefix
        )
        for part, (_, _, packed) in zip(call.calls, replies, strict=True)
        if packed  # A reservation may have no shared limits.
    ]
    states = tuple(
        _make_limit_state(limit, record.t) for record in records for limit in record.limits if limit.admitted
    )
    record = records[0]
    return SettleReply(
        Settlement(outcome == "settled", replayed == "1", states),
        record.key,
        call.tenant,
        record.plan,
        record.model,
        tuple(limit for record in records for limit in record.limits),
        record.t,
    )


def _make_limit_state(limit: RecordedLimit, t: int) -> LimitState:
    status = evaluate_settled_limit(limit.kind, limit.shape, limit.state, t)
    return make_limit_state(limit.name, limit.unit, limit.kind, limit.shape, limit.mode, status)
