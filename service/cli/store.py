"""The store that a command reads, opened for as long as a block lasts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ratelimit.stores import connect
from ratelimit.stores.failures import CONNECTION_ERRORS, explain_error
from service.cli.output import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimit.stores.clients import Store


@contextlib.contextmanager
def open_store(redis: str, deadline: float) -> Iterator[Store[Any, Any]]:
    """Open a store. If it does not answer, also within the block, print an error and exit.

    Args:
        redis: the store's URL.
        deadline: seconds that a command may take.

    Raises:
        RateLimitError: the URL does not name a store, or the embedded server does not start.
    """
    store = connect(redis, deadline)
    try:
        store.client.ping()
        yield store
    except BrokenPipeError:
        # One of CONNECTION_ERRORS, but here it means that the program that read our output has ended.
        raise
    except CONNECTION_ERRORS as error:
        fail(f"{store.url}: {explain_error(error)}")
    finally:
        store.client.close()
        store.client.connection_pool.disconnect()
        store.release()
