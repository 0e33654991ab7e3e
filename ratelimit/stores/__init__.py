"""From a URL to a client of the store behind it."""

from ratelimit.stores.clients import Store, connect, connect_async
from ratelimit.stores.url import StoreURL

__all__ = ["Store", "StoreURL", "connect", "connect_async"]
