"""Which server of a cluster has which slot. No I/O.

Source: Redis cluster specification, "Redirection and resharding"; the reply of CLUSTER SLOTS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ratelimit.engine.keyspace import SLOTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.stores.url import Address

_NON_LOCAL_KEY: Final = "attempted to access a non local key"
"""What a script's error says when the slot is being moved to another server and some keys are there already.

lua/settle.lua looks for such keys before it writes anything."""


class Redirect(NamedTuple):
    """What an error reply says about a slot. The command has not run.

    Attributes:
        kind: `moved`: another server has the slot. `ask`: it is being moved, and the other server can run
            this command. `again`: it is being moved, and at the moment neither server can run this command.
        address: the other server; its host is empty if it is the one that replied.
    """

    kind: str
    address: Address | None = None


def parse_redirect(error: Exception) -> Redirect | None:
    """Return what an error reply says about a slot; None for every other error."""
    text = str(error)
    word, _, rest = text.partition(" ")
    if word in {"MOVED", "ASK"}:
        host, _, port = rest.rpartition(" ")[2].rpartition(":")
        return Redirect(word.lower(), (host, int(port)))
    if word == "TRYAGAIN" or _NON_LOCAL_KEY in text:
        return Redirect("again")
    return None


class Topology:
    """The primary of each slot, as far as it is known. Replicas are never asked.

    Attributes:
        primaries: the primary of each slot; None where it is not known.

    Args:
        seeds: servers of the cluster, to ask for the others.
    """

    def __init__(self, seeds: Sequence[Address]) -> None:
        self._seeds = tuple(seeds)
        self._rotation = -1
        self.primaries: list[Address | None] = [None] * SLOTS

    @property
    def is_known(self) -> bool:
        """Whether the servers were read at least once."""
        return self.primaries[0] is not None

    def find_primary(self, slot: int) -> Address:
        """Return the primary of a slot; a server that knows it, if it is not known."""
        return self.primaries[slot] or self._seeds[0]

    def list_primaries(self) -> list[Address]:
        """Return all known primaries."""
        return list(dict.fromkeys(filter(None, self.primaries)))

    def list_candidates(self) -> list[Address]:
        """Return the servers to ask for the others."""
        return list(dict.fromkeys([*self.list_primaries(), *self._seeds]))

    def rotate_candidates(self) -> list[Address]:
        """Return the same, each time with another one first: one that does not answer is not always asked."""
        candidates = self.list_candidates()
        self._rotation += 1
        first = self._rotation % len(candidates)
        return candidates[first:] + candidates[:first]

    def move_slot(self, slot: int, address: Address) -> None:
        """Note that a server said that another one has a slot."""
        self.primaries[slot] = address

    def read_slots(self, reply: Sequence[Any], asked: Address) -> bool:
        """Read a reply to CLUSTER SLOTS.

        Args:
            reply: the reply.
            asked: the server that replied: it may leave out its own host.

        Returns:
            Whether something has changed.
        """
        primaries: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            name = host.decode() if isinstance(host, bytes) else host
            address = (asked[0] if name in {None, "", "?"} else name, int(port))
            primaries[first : last + 1] = [address] * (last + 1 - first)
        # A server that has just left the cluster knows no slots: keep what is known.
        primaries = [new or old for new, old in zip(primaries, self.primaries, strict=True)]
        has_changed = primaries != self.primaries
        self.primaries = primaries
        return has_changed
