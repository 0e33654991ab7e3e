"""The last state that this process has seen of each bucket of a limit with `on_outage: local`.

An outage starts from these states. Replies are kept as they come, and decoded only in an outage: checks pay
for nothing but an entry in a dictionary.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ratelimit.engine.check_script import unpack_time
from ratelimit.engine.limit_status import make_bucket, unpack_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimit.engine.bucket import Bucket
    from ratelimit.engine.reservation_record import RecordedLimit
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.simulation import BucketId

    _Reply = tuple[ResolvedCheck, bytes]
    """A check, and the reply of the check script to it."""

_VERDICTS = b"10"  # the first byte of a reply; a remembered answer, whose state is old, has another
_ADMITTED = _VERDICTS[0]


class LastStates:
    """The last states that the replies of both scripts told.

    Args:
        max_owners: for how many owners replies are kept at most. Above that, the oldest is dropped.
    """

    def __init__(self, max_owners: int) -> None:
        self._max_owners = max_owners
        # By store key and names: the layouts of other plans may have other limits under the same store key.
        self._replies: OrderedDict[tuple[str, str], _Reply] = OrderedDict()
        self._name_lists: set[str] = set()
        self._settled: OrderedDict[BucketId, Bucket] = OrderedDict()

    def remember_reply(self, check: ResolvedCheck, reply: bytes) -> None:
        """Remember the reply of the check script to a check with `local_groups`."""
        if reply[0] not in _VERDICTS:
            return
        replies, subject = self._replies, check.subject
        for number, names in subject.layout.local_groups:
            place = subject.store_keys[number], names
            last = replies.get(place)
            if last is None:
                replies[place] = check, reply
                self._name_lists.add(names)
                if len(replies) > self._max_owners:
                    replies.popitem(last=False)
            elif not _is_older(check, reply, *last):
                replies[place] = check, reply
                replies.move_to_end(place)

    def remember_charged(self, limits: Sequence[RecordedLimit]) -> None:
        """Remember the states after a charge of limits with `on_outage: local`."""
        self._name_lists.update(limit.name for limit in limits)
        self.remember_settled(limits)

    def remember_settled(self, limits: Sequence[RecordedLimit]) -> None:
        """Remember the states after a settlement, of the limits that are known to say `on_outage: local`."""
        names = {name for names in self._name_lists for name in names.split(",")}
        for limit in limits if names else ():
            if limit.admitted and limit.kind == "bucket" and limit.name in names:
                bucket_id = limit.store_key, limit.name
                self._settled[bucket_id] = make_bucket(limit.state)
                self._settled.move_to_end(bucket_id)
                if len(self._settled) > self._max_owners:
                    self._settled.popitem(last=False)

    def forget_store_keys(self, store_keys: Iterable[str]) -> None:
        """Forget the states of buckets that have been reset."""
        for store_key in store_keys:
            for names in self._name_lists:
                self._replies.pop((store_key, names), None)
                for name in names.split(","):
                    self._settled.pop((store_key, name), None)

    def find(self, bucket_id: BucketId) -> Bucket | None:
        """Return the last state of a bucket; None if this process has not seen any."""
        store_key, name = bucket_id
        found = [self._settled.get(bucket_id)]
        for names in self._name_lists:
            reply = self._replies.get((store_key, names))
            if reply is not None and name in names.split(","):
                found.append(_read_bucket(*reply, bucket_id))
        states = [bucket for bucket in found if bucket is not None]
        # The time of a bucket never goes back, and at the same time it is only taken from. The one exception
        # is a refund to a late request: then the state before it is found, which admits less.
        return max(states, key=lambda bucket: (bucket.at, bucket.used), default=None)


def _is_older(check: ResolvedCheck, reply: bytes, last_check: ResolvedCheck, last_reply: bytes) -> bool:
    """Whether a reply is older than the last one: threads may read their replies in another order."""
    if check.timestamp is not None or last_check.timestamp is not None:
        return False
    return unpack_time(reply) < unpack_time(last_reply)


def _read_bucket(check: ResolvedCheck, reply: bytes, bucket_id: BucketId) -> Bucket | None:
    """Return the state of a bucket after the check to which this is the reply."""
    t, states = unpack_states(check.subject.layout, reply)
    for (placed, store_key, cost), state in zip(check.limit_costs, states, strict=True):
        if (store_key, placed.limit.name) == bucket_id:
            bucket = make_bucket(state)
            taken = reply[0] == _ADMITTED and check.take and cost and bucket.admits(placed.shape, t, cost)
            return bucket.take(placed.shape, t, cost) if taken else bucket
    return None
