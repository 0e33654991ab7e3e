"""The usage stream, read a page at a time, and what to wait for at its end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import typer

from ratelimit.engine.check_script import text_of
from ratelimit.engine.layout import USAGE
from ratelimit.limiters.base import CONNECTION_ERRORS, explain_error
from ratelimit.metering.usage_records import read_record
from ratelimit.policy.rate import parse_period
from ratelimit.request.timestamp import MICROSECONDS, parse_timestamp
from ratelimit.stores import connect
from service.cli.keys import DEADLINE
from service.cli.output import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ratelimit.metering.usage_records import Record

    Entry = tuple[str, Mapping[bytes | str, bytes | str]]
    """An entry's id, and its fields as the store tells them."""

START: Final = "0-0"
"""What comes before every id."""

_PAGE: Final = 1000
"""Entries read in one call: about a millisecond of the store's time, for which nobody else is served."""

_BLOCK: Final = 5.0
"""Seconds that one call waits for the next entry."""

_HIGHEST: Final = 2**64 - 1  # of the numbers behind a millisecond
_MILLISECOND: Final = 1000  # in microseconds


class Stream:
    """The usage stream of a store. Whatever asks for entries names the id after which they come.

    Args:
        client: as `ratelimit.stores.connect` makes it, see `opened`.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's types fit neither of its clients
        self._client = client

    def before(self, since: str) -> str:
        """Return the highest id that comes before a time.

        Args:
            since: how long ago by the store's clock (`30m`, `2h`, `7d`), or a timestamp.

        Raises:
            ValueError: it is neither.
        """
        with contextlib.suppress(ValueError):
            ago = parse_period(since)
            seconds, microseconds = self._client.time()
            return _before(seconds * MICROSECONDS + microseconds - ago)
        return _before(parse_timestamp(since) or 0)

    def pages(self, after: str) -> Iterator[Entry]:
        """Read all entries, oldest first."""
        while page := self._client.xrange(USAGE, f"({after}", "+", count=_PAGE):
            for name, fields in page:
                after = text_of(name)
                yield after, fields

    def newest(self, after: str, count: int) -> list[Entry]:
        """Read the newest entries, at most `count`, oldest first."""
        found: list[Entry] = []
        end = "+"
        while page := self._client.xrevrange(USAGE, end, f"({after}", count=min(_PAGE, count - len(found))):
            found += ((text_of(name), fields) for name, fields in page)
            if len(found) == count:
                break
            end = f"({found[-1][0]}"
        return found[::-1]

    def wait(self, after: str) -> None:
        """Return when there may be another entry; what it is `pages` tells, and misses none."""
        self._client.xread({USAGE: after}, count=1, block=int(_BLOCK * 1000))


def _before(microseconds: int) -> str:
    milliseconds = -(-microseconds // _MILLISECOND)
    return f"{milliseconds - 1}-{_HIGHEST}" if milliseconds > 0 else START


@contextlib.contextmanager
def opened(redis: str, *, waits: bool) -> Iterator[tuple[Stream, str]]:
    """Open the stream of a store.

    Gives it and the store's name. A store that does not answer ends the command.

    Args:
        redis: the store's URL.
        waits: whether `Stream.wait` will be called: that must not be taken for a silent store.

    Raises:
        RateLimitError: the URL names no store, or the embedded server does not start.
    """
    store = connect(redis, DEADLINE + _BLOCK if waits else DEADLINE)
    try:
        store.client.ping()
        yield Stream(store.client), str(store.url)
    except BrokenPipeError:
        raise  # whoever read our output has had enough; the store is well
    except CONNECTION_ERRORS as error:
        fail(f"{store.url}: {explain_error(error)}")
    finally:
        store.client.close()
        store.client.connection_pool.disconnect()
        store.release()


def records(entries: Iterable[Entry]) -> Iterator[Record]:
    """Read entries; what is no usage record is complained of, so that no bill is short unnoticed."""
    for name, fields in entries:
        try:
            yield read_record(name, {text_of(field): text_of(value) for field, value in fields.items()})
        except ValueError as error:
            typer.echo(f"ratelimit: {error}", err=True)
