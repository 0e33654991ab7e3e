"""A request's headers, gone through once, and read only where somebody looks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection


class Headers:
    """Values by lower-case name; of a header that was sent more than once, the first.

    Gateways pass on all that a client sent, which is a lot to decode for the few names that count here.
    """

    def __init__(self, request: HTTPConnection) -> None:
        self._pairs: list[tuple[bytes, bytes]] = [*request.scope["headers"]]
        self._first = dict(reversed(self._pairs))

    def get(self, name: bytes) -> str:
        """Return a value; nothing if it was not sent."""
        return self._first[name].decode("latin-1") if name in self._first else ""

    def __contains__(self, name: bytes) -> bool:
        return name in self._first

    def all(self, name: bytes) -> list[str]:
        """Return every value of one name, in the order sent."""
        return [value.decode("latin-1") for other, value in self._pairs if other == name]

    def doubled(self) -> set[bytes]:
        """Return the names that were sent more than once."""
        if len(self._first) == len(self._pairs):
            return set()
        return {name for name, times in Counter(name for name, _ in self._pairs).items() if times > 1}
