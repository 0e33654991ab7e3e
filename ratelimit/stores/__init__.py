"""Stores: from a URL to an open store, and what decides when the store does not answer."""

from ratelimit.stores.clients import Store, connect, connect_async, open_client
from ratelimit.stores.url import StoreURL

__all__ = ["Store", "StoreURL", "connect", "connect_async", "open_client"]
