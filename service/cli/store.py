"""The store that a command reads, opened for as long as a block lasts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic

from ratelimit.stores import StoreURL, open_client
from ratelimit.stores.failures import CONNECTION_ERRORS, explain_error
from service.cli.output import fail
from service.settings import StoreSettings, list_setting_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimit.engine.keyspace import Keyspace


class OpenedStore(NamedTuple):
    """An open store.

    Attributes:
        name: its URL without the password.
        client: redis-py's client.
        keyspace: the store keys.
    """

    name: str
    client: Any
    keyspace: Keyspace


def complete_store_url(redis: str) -> str:
    """Return the store's URL with what `RATELIMIT_REDIS_*` adds to it: files for TLS, and the password.

    If a setting is wrong, print an error and exit.
    """
    try:
        return StoreSettings(redis=redis).store_url
    except pydantic.ValidationError as error:
        fail("\nratelimit: ".join(list_setting_faults(error)))


@contextlib.contextmanager
def open_store(redis: str, deadline: float) -> Iterator[OpenedStore]:
    """Open a store. If it does not answer, also within the block, print an error and exit.

    Args:
        redis: the store's URL.
        deadline: seconds that a command may take.

    Raises:
        RateLimitError: the URL does not name a store, or the embedded server does not start.
    """
    url = StoreURL.parse(redis)
    with contextlib.ExitStack() as stack:
        try:
            client, close = open_client(redis, deadline)
            stack.callback(close)
            client.ping()
            yield OpenedStore(str(url), client, url.keyspace)
        except BrokenPipeError:
            # One of CONNECTION_ERRORS, but here it means that the program that read our output has ended.
            raise
        except CONNECTION_ERRORS as error:
            fail(f"{url}: {explain_error(error)}")
