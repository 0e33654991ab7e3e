"""Read the stream of usage records, and wait for new ones."""

from __future__ import annotations

import contextlib
import heapq
import time
from typing import TYPE_CHECKING, Any, Final

import redis
import typer

from ratelimit.engine.check_script import text_of
from ratelimit.metering.usage_records import read_record
from ratelimit.policy.rate import parse_period
from ratelimit.request.timestamp import MICROSECONDS, parse_timestamp
from service.cli.keys import DEADLINE
from service.cli.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ratelimit.metering.usage_records import Record

    Entry = tuple[str, Mapping[bytes | str, bytes | str]]
    """An entry's id, and its fields as the store returns them."""

LOWEST_ID: Final = "0-0"
"""Lower than the id of every entry."""

_PAGE: Final = 1000
"""Entries that one call reads. This takes about a millisecond, in which the store serves no other client."""

_MAX_WAIT: Final = 5.0
"""Seconds for which one call waits for the next entry."""

_POLL_INTERVAL: Final = 0.2
"""Seconds between two looks for new entries in several streams."""

_MAX_SEQUENCE: Final = 2**64 - 1
"""The highest number after the milliseconds of an id."""

_MILLISECOND: Final = 1000
"""In microseconds."""


class UsageStream:
    """The usage stream of a store. On a cluster it is several streams, whose entries are merged by their ids.

    Methods that read entries return those after a given id, oldest first.

    Args:
        client: redis-py's client.
        streams: the store keys of the streams.
    """

    def __init__(self, client: Any, streams: Sequence[str]) -> None:  # noqa: ANN401 - redis-py has many clients
        self._client = client
        self._streams = streams
        self._read_until: dict[str, str] = {}  # for `read_new`, the last id that was read of each stream

    def find_id_before(self, since: str) -> str:
        """Return the highest id that an entry before a time can have.

        Args:
            since: how long ago by the store's clock (`30m`, `2h`, `7d`), or a timestamp.

        Raises:
            ValueError: it is neither.
        """
        with contextlib.suppress(ValueError):
            ago = parse_period(since)
            seconds, microseconds = read_time(self._client)
            return _make_id_before(seconds * MICROSECONDS + microseconds - ago)
        return _make_id_before(parse_timestamp(since) or 0)

    def read_entries(self, after: str) -> Iterator[Entry]:
        """Read all entries, page by page."""
        pages = [self._read_pages(stream, after) for stream in self._streams]
        return heapq.merge(*pages, key=_make_sort_key)

    def _read_pages(self, stream: str, after: str) -> Iterator[Entry]:
        while page := self._client.xrange(stream, f"({after}", "+", count=_PAGE):
            for entry_id, fields in page:
                after = text_of(entry_id)
                yield after, fields

    def read_newest(self, after: str, count: int) -> list[Entry]:
        """Read the newest entries, at most `count`. `read_new` will go on behind them."""
        newest: list[Entry] = []
        for stream in self._streams:
            # Without entries to return, the newest one is still read: its id is where the new ones begin.
            entries = self._read_newest_of(stream, after, max(count, 1))
            self._read_until[stream] = entries[-1][0] if entries else after
            newest += entries
        newest.sort(key=_make_sort_key)
        return newest[-count:] if count else []

    def _read_newest_of(self, stream: str, after: str, count: int) -> list[Entry]:
        entries: list[Entry] = []
        end = "+"
        while page := self._client.xrevrange(
            stream, end, f"({after}", count=min(_PAGE, count - len(entries))
        ):
            entries += ((text_of(entry_id), fields) for entry_id, fields in page)
            if len(entries) == count:
                break
            end = f"({entries[-1][0]}"
        return entries[::-1]

    def start_after(self, after: str) -> None:
        """Let `read_new` begin after an id."""
        self._read_until = dict.fromkeys(self._streams, after)

    def read_new(self) -> Iterator[Entry]:
        """Read the entries that are there and were not read yet."""
        pages = [self._read_new_of(stream) for stream in self._streams]
        return heapq.merge(*pages, key=_make_sort_key)

    def _read_new_of(self, stream: str) -> Iterator[Entry]:
        for entry in self._read_pages(stream, self._read_until[stream]):
            self._read_until[stream] = entry[0]
            yield entry

    def wait_for_entry(self) -> None:
        """Wait until there may be another entry, for a few seconds at most.

        The entry is not returned: `read_new` reads it, so that one method returns all entries.
        """
        if len(self._streams) > 1:  # No command waits for streams on several servers.
            time.sleep(_POLL_INTERVAL)
        else:
            self._client.xread(self._read_until, count=1, block=int(_MAX_WAIT * 1000))


def read_time(client: Any) -> tuple[int, int]:  # noqa: ANN401 - redis-py has many clients
    """Return the clock of the store, of a cluster any server's: seconds since the epoch, and microseconds."""
    reply = client.execute_command("TIME", target_nodes="random") if _is_cluster(client) else client.time()
    seconds, microseconds = reply
    return int(seconds), int(microseconds)


def _is_cluster(client: object) -> bool:
    return isinstance(client, redis.RedisCluster)


def _make_sort_key(entry: Entry) -> tuple[int, int]:
    milliseconds, _, sequence = entry[0].partition("-")
    return int(milliseconds), int(sequence)


def _make_id_before(microseconds: int) -> str:
    milliseconds = -(-microseconds // _MILLISECOND)
    return f"{milliseconds - 1}-{_MAX_SEQUENCE}" if milliseconds > 0 else LOWEST_ID


@contextlib.contextmanager
def open_stream(url: str, *, waits: bool) -> Iterator[tuple[UsageStream, str]]:
    """Open the usage stream of a store; yield the stream and the store's name.

    If the store does not answer, print an error and exit.

    Args:
        url: the store's URL.
        waits: whether `wait_for_entry` will be called. The deadline is longer then, because a store that
            waits for an entry does not answer at once.

    Raises:
        RateLimitError: the URL does not name a store, or the embedded server does not start.
    """
    with open_store(url, DEADLINE + _MAX_WAIT if waits else DEADLINE) as store:
        yield UsageStream(store.client, store.keyspace.usage_streams), store.name


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
