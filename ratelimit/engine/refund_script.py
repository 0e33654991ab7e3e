"""Encodes the call of lua/settle.lua that gives back what a check took, if shared limits deny it. No I/O."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from ratelimit.engine.check_script import unpack_time
from ratelimit.engine.limit_status import evaluate_limit, make_bucket, unpack_states
from ratelimit.engine.reservation_record import encode_record
from ratelimit.engine.settle_script import ScriptCall, encode_head

if TYPE_CHECKING:
    from ratelimit.engine.keyspace import Keyspace
    from ratelimit.engine.layout import PlacedLimit
    from ratelimit.engine.limit_status import RawState
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import SettleAction, SettleOptions

_TRACE_STRUCT: Final = Struct("<4d")


def encode_refund(own: ResolvedCheck, reply: bytes, keyspace: Keyspace, options: SettleOptions) -> ScriptCall:
    """Return the call of lua/settle.lua to give back what a check took, which shared limits have denied.

    Args:
        own: the part of the check that was admitted.
        reply: the reply to it.
        keyspace: the store keys.
        options: what all settlements have in common.
    """
    subject = own.subject
    keys = keyspace.make_usage_store_keys(subject.prefix)
    answer, record = own.answer_store_key, own.record_store_key
    t, states = unpack_states(subject.layout, reply)
    limits = list(zip(subject.layout.placed_limits, own.costs, states, strict=True))
    taken = [evaluate_limit(*limit, t, taken=False).wait == 0 for limit in limits]
    charged = own.reservation or ""
    if not record:
        charged = encode_record(own, "".join(str(int(is_taken)) for is_taken in taken))
    traces = [
        _make_trace(*limit, t, is_taken=is_taken) for limit, is_taken in zip(limits, taken, strict=True)
    ]
    action: SettleAction = "refund" if answer else "cancel"
    head = encode_head(action, charged, subject.tenant, subject.prefix, options)
    head[1] = int(unpack_time(reply))  # At a later time, a check from the past would not see the refund.
    keys += filter(None, (answer, record))
    return ScriptCall(keys, [*head, 0, b"".join(traces)], subject.prefix)


def _make_trace(placed: PlacedLimit, cost: float, state: RawState, t: int, *, is_taken: bool) -> bytes:
    """Return the state of a bucket before a check at time `t` and after it; of other limits only zeros."""
    if placed.kind != "bucket":
        return _TRACE_STRUCT.pack(0, 0, 0, 0)
    before = after = make_bucket(state)
    if is_taken and cost:
        after = before.take(placed.shape, t, cost)
    return _TRACE_STRUCT.pack(*before, *after)
