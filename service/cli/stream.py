"""Read the stream of usage records, and wait for new ones."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import typer

from ratelimit.engine.check_script import text_of
from ratelimit.engine.layout import USAGE
from ratelimit.metering.usage_records import read_record
from ratelimit.policy.rate import parse_period
from ratelimit.request.timestamp import MICROSECONDS, parse_timestamp
from service.cli.keys import DEADLINE
from service.cli.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ratelimit.metering.usage_records import Record

    Entry = tuple[str, Mapping[bytes | str, bytes | str]]
    """An entry's id, and its fields as the store returns them."""

LOWEST_ID: Final = "0-0"
"""Lower than the id of every entry."""

_PAGE: Final = 1000
"""Entries that one call reads. This takes about a millisecond, in which the store serves no other client."""

_MAX_WAIT: Final = 5.0
"""Seconds for which one call waits for the next entry."""

_MAX_SEQUENCE: Final = 2**64 - 1
"""The highest number after the milliseconds of an id."""

_MILLISECOND: Final = 1000
"""In microseconds."""


class UsageStream:
    """The usage stream of a store.

    Methods that read entries return those after a given id, oldest first.

    Args:
        client: a client as `ratelimit.stores.connect` makes it.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's types fit neither of its clients
        self._client = client

    def find_id_before(self, since: str) -> str:
        """Return the highest id that an entry before a time can have.

        Args:
            since: how long ago by the store's clock (`30m`, `2h`, `7d`), or a timestamp.

        Raises:
            ValueError: it is neither.
        """
        with contextlib.suppress(ValueError):
            ago = parse_period(since)
            seconds, microseconds = self._client.time()
            return _make_id_before(seconds * MICROSECONDS + microseconds - ago)
        return _make_id_before(parse_timestamp(since) or 0)

    def read_entries(self, after: str) -> Iterator[Entry]:
        """Read all entries, page by page."""
        while page := self._client.xrange(USAGE, f"({after}", "+", count=_PAGE):
            for entry_id, fields in page:
                after = text_of(entry_id)
                yield after, fields

    def read_newest(self, after: str, count: int) -> list[Entry]:
        """Read the newest entries, at most `count`."""
        entries: list[Entry] = []
        end = "+"
        while page := self._client.xrevrange(USAGE, end, f"({after}", count=min(_PAGE, count - len(entries))):
            entries += ((text_of(entry_id), fields) for entry_id, fields in page)
            if len(entries) == count:
                break
            end = f"({entries[-1][0]}"
        return entries[::-1]

    def wait_for_entry(self, after: str) -> None:
        """Wait until there is another entry, or for a few seconds.

        The entry is not returned: `read_entries` reads it, so that one method returns all entries.
        """
        self._client.xread({USAGE: after}, count=1, block=int(_MAX_WAIT * 1000))


def _make_id_before(microseconds: int) -> str:
    milliseconds = -(-microseconds // _MILLISECOND)
    return f"{milliseconds - 1}-{_MAX_SEQUENCE}" if milliseconds > 0 else LOWEST_ID


@contextlib.contextmanager
def open_stream(redis: str, *, waits: bool) -> Iterator[tuple[UsageStream, str]]:
    """Open the usage stream of a store; yield the stream and the store's name.

    If the store does not answer, print an error and exit.

    Args:
        redis: the store's URL.
        waits: whether `wait_for_entry` will be called. The deadline is longer then, because a store that
            waits for an entry does not answer at once.

    Raises:
        RateLimitError: the URL does not name a store, or the embedded server does not start.
    """
    with open_store(redis, DEADLINE + _MAX_WAIT if waits else DEADLINE) as store:
        yield UsageStream(store.client), str(store.url)


def parse_records(entries: Iterable[Entry]) -> Iterator[Record]:
    """Parse entries into usage records.

    Print an error for each entry that is not a usage record, because the sums would otherwise be too low
    without a sign of it.
    """
    for entry_id, fields in entries:
        try:
            yield read_record(entry_id, {text_of(field): text_of(value) for field, value in fields.items()})
        except ValueError as error:
            typer.echo(f"ratelimit: {error}", err=True)
