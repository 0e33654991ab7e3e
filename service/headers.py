"""A request's headers, gone through once rather than at every look."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection


class Headers(dict[str, str]):
    """Values by lower-case name; of a header that was sent more than once, the first."""

    def __init__(self, request: HTTPConnection) -> None:
        self._pairs = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]
        ]
        super().__init__(reversed(self._pairs))

    def all(self, name: str) -> list[str]:
        """Return every value of one name, in the order sent."""
        return [value for other, value in self._pairs if other == name]

    def doubled(self) -> set[str]:
        """Return the names that were sent more than once."""
        if len(self) == len(self._pairs):
            return set()
        return {name for name, times in Counter(name for name, _ in self._pairs).items() if times > 1}
