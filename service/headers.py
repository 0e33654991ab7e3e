"""The headers of a request. The list is read once, and only values that are asked for are decoded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection


class Headers:
    """Header values by lower-case name. If a name was sent more than once, its first value counts.

    Gateways forward all headers of the client. Only a few names matter here, so decoding every header
    would be wasted time.
    """

    def __init__(self, request: HTTPConnection) -> None:
        self._pairs: list[tuple[bytes, bytes]] = [*request.scope["headers"]]
        # Reversed, so that the first value of a name overwrites the later ones.
        self._first_values = dict(reversed(self._pairs))

    def get(self, name: bytes) -> str:
        """Return the first value of a name; empty if the header was not sent."""
        return self._first_values[name].decode("latin-1") if name in self._first_values else ""

    def __contains__(self, name: bytes) -> bool:
        return name in self._first_values

    def all(self, name: bytes) -> list[str]:
        """Return every value of a name, in the order sent."""
        return [value.decode("latin-1") for other, value in self._pairs if other == name]

    def find_repeated_names(self) -> set[bytes]:
        """Return the names that were sent more than once."""
        if len(self._first_values) == len(self._pairs):
            return set()
        return {name for name, times in Counter(name for name, _ in self._pairs).items() if times > 1}
