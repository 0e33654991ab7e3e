"""The store keys.

On one server:

    rl1:{tenant}:k:key   buckets of a key; rl1:{key}:k if the key is its own tenant
    rl1:{tenant}:t       buckets of a tenant
    rl1:{*}              buckets that everyone shares
    …/class              the same for one model class
    …!limit              what a limit on failures has counted
    …#limit              the sorted set with the slots of a limit
    rl1:{tenant}:R:id    the record of a reservation
    rl1:{tenant}:q:key:id  the answer to a check, remembered by its request id; rl1:{key}:q::id likewise
    rl1:usage            the stream of usage records
    rl1:usage@unread     how many usage records were trimmed unread
    rl1:keys             what operators assigned to keys at run time
    rl1:tenants          what operators assigned to tenants at run time
    rl1:top:interval     what processes have counted in an interval of five seconds

On a cluster:

    rl1:{shard}:tenant…  in place of rl1:{tenant}…; also rl1:{shard}:usage and rl1:{shard}:usage@unread
    rl1:{*}:tenant…      what a reservation or a remembered answer has of the limits that everyone shares
    rl1:{*}:keys         and so on, in place of rl1:keys

The text in braces is the hash tag. All state of one tenant is in one cluster slot, so one atomic call decides
on it. Every character other than a plain letter, a digit or `_ - . ~` is written as its percent code. So no
key or tenant can be mistaken for another, nor for the `*` of everyone.

One call may not span slots. If each tenant had a slot of its own, each check would be a call of its own,
which costs a server 1.55 times the processor time of a check in a large call. So tenants share a fixed number
of shards: with 8 checks in a call the factor is 1.07, with 4 it is 1.18. There are twelve, so three, four and
six servers have equally many. More shards would mean smaller calls, and fewer would mean fewer servers.
"""

from __future__ import annotations

import binascii
import re
import zlib
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote

Owner = Literal["key", "tenant", "everyone"]
"""To whom a limit's state belongs: its scope without the model class."""

PREFIX: Final = "rl1"
"""The version of the layout. A new version never reads the state of an old one."""

EVERYONE: Final = f"{PREFIX}:{{*}}"

SLOTS: Final = 16_384
"""The slots of a cluster."""

SHARDS: Final = 12
"""The shards of a cluster. Another number would look for all state elsewhere, so this never changes."""

_PLAIN_TEXT: Final = re.compile("[A-Za-z0-9_.~-]+")
"""Text that needs no percent codes, as most keys are."""


def find_slot(tag: str) -> int:
    """Return the cluster slot of a hash tag.

    Source: Redis cluster specification, "Key distribution model": CRC16 (XMODEM) modulo 16384.
    """
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def find_tag(store_key: str) -> str:
    """Return the hash tag of a store key."""
    return store_key[store_key.index("{") + 1 : store_key.index("}")]


def _choose_tags(shards: int) -> tuple[str, ...]:
    """Return a hash tag for each shard: the first number whose slot lies in that shard's part of all slots.

    So servers that have equally many slots also have equally many shards.
    """
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < shards:
        tag = f"{number:x}"
        tags.setdefault(find_slot(tag) * shards // SLOTS, tag)
        number += 1
    return tuple(tags[shard] for shard in range(shards))


@dataclass(frozen=True, slots=True)
class Keyspace:
    """How the store keys of a store begin.

    Attributes:
        shards: over how many hash tags tenants are spread; 0 for a store that is not a cluster.
        everything: the start of the store keys that belong to no tenant.
        usage_streams: the streams of usage records.
        keys: what operators assigned to keys.
        tenants: what operators assigned to tenants.
        counter: how many assignments there were.
    """

    shards: int = 0
    everything: str = field(init=False)
    usage_streams: tuple[str, ...] = field(init=False)
    keys: str = field(init=False)
    tenants: str = field(init=False)
    counter: str = field(init=False)
    _tags: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute once what every call needs."""
        everything = EVERYONE if self.shards else PREFIX
        tags = _choose_tags(self.shards)
        streams = tuple(f"{PREFIX}:{{{tag}}}:usage" for tag in tags) if tags else (f"{PREFIX}:usage",)
        object.__setattr__(self, "everything", everything)
        object.__setattr__(self, "usage_streams", streams)
        object.__setattr__(self, "keys", f"{everything}:keys")
        object.__setattr__(self, "tenants", f"{everything}:tenants")
        object.__setattr__(self, "counter", f"{everything}:keys@")
        object.__setattr__(self, "_tags", tags)

    def make_prefix(self, tenant: str) -> str:
        """Return the start of all store keys of a tenant."""
        if not self.shards:
            return f"{PREFIX}:{{{escape(tenant)}}}"
        return f"{PREFIX}:{{{self._tags[zlib.crc32(tenant.encode()) % self.shards]}}}:{escape(tenant)}"

    def make_usage_store_keys(self, prefix: str) -> list[str]:
        """Return the store keys of a tenant's usage stream, and of its count of unread records."""
        stream = f"{PREFIX}:{{{find_tag(prefix)}}}:usage" if self.shards else self.usage_streams[0]
        return [stream, make_unread_store_key(stream)]

    def share_usage_length(self, length: int) -> int:
        """Return how many records each usage stream keeps, if all streams together keep `length`."""
        return -(-length // len(self.usage_streams))


ONE_SERVER: Final = Keyspace()
"""The store keys of a store that is not a cluster."""


def make_shared_prefix(tenant: str) -> str:
    """Return the start of a tenant's store keys beside the limits that everyone shares, on a cluster."""
    return f"{EVERYONE}:{escape(tenant)}"


def make_unread_store_key(stream: str) -> str:
    """Return the store key of how many records of a usage stream were trimmed unread."""
    return f"{stream}@unread"


def make_owner_store_key(owner: Owner, prefix: str, key: str, tenant: str) -> str:
    """Return the store key of an owner's buckets; those of a model class have a suffix behind it."""
    if owner == "everyone":
        return EVERYONE
    if owner == "tenant":
        return f"{prefix}:t"
    return f"{prefix}:k" if key == tenant else f"{prefix}:k:{escape(key)}"


def make_record_store_key(prefix: str, token: str) -> str:
    """Return the store key of a reservation's record. The mark `r` belonged to records of another form."""
    return f"{prefix}:R:{token}"


def make_answer_store_key(prefix: str, key: str, tenant: str, request_id: str) -> str:
    """Return the store key of a remembered answer."""
    owner = "" if key == tenant else escape(key)
    return f"{prefix}:q:{owner}:{escape(request_id)}"


def escape(text: str) -> str:
    """Return text with percent codes."""
    return text if _PLAIN_TEXT.fullmatch(text) else quote(text, safe="")
