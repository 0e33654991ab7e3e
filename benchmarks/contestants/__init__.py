"""The contestants: each used as its own documentation advises, all on the same server and socket.

A contestant is a module with two context managers, `blocking` and `asyncio`. Each gives a function
`check(key, cost)` that takes the cost from every quota of the key and returns whether all admitted it.
A child process imports only the module that it plays (worker.py), so none pays for another's imports
or threads.
"""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.workload import Quota

CONNECTIONS: Final = 256
"""As many as there are tasks at most. With redis-py's own 100 the 101st task fails, and waiting in
line for one of 16 or 64 was no faster."""

OURS: Final = "ratelimit"
EMPTY: Final = "redis-py, empty script"
BUCKET: Final = "redis-py, bucket script"
THROTTLED: Final = "throttled-py token bucket"

Check = Callable[[str, int], bool]
AsyncCheck = Callable[[str, int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Contestant:
    module: str  # in this package
    variant: str  # which of the module's several ways
    kind: Literal["ours", "peer", "plain"]  # `plain`: no limiter, but what one would write by hand
    direct: tuple[str, ...] = ()  # commands sent besides scripts, whose time inside Redis is its own too
    decides: bool = True  # false of what admits everything
    bursts: bool = True  # whether a burst may be larger or smaller than the count

    def blocking(self, url: str, quotas: Sequence[Quota]) -> AbstractContextManager[Check]:
        opened: AbstractContextManager[Check] = self._module().blocking(url, quotas, self.variant)
        return opened

    def asyncio(self, url: str, quotas: Sequence[Quota]) -> AbstractAsyncContextManager[AsyncCheck]:
        opened: AbstractAsyncContextManager[AsyncCheck] = self._module().asyncio(url, quotas, self.variant)
        return opened

    def _module(self) -> Any:  # noqa: ANN401 - the types above say what is in it
        return importlib.import_module(f"benchmarks.contestants.{self.module}")


CONTESTANTS: Final[dict[str, Contestant]] = {
    OURS: Contestant("ours", "", "ours"),
    EMPTY: Contestant("plain", "empty", "plain", decides=False),
    BUCKET: Contestant("plain", "bucket", "plain"),
    "limits fixed window": Contestant("limits", "FixedWindow", "peer", bursts=False),
    "limits moving window": Contestant("limits", "MovingWindow", "peer", bursts=False),
    "limits sliding window": Contestant("limits", "SlidingWindowCounter", "peer", bursts=False),
    THROTTLED: Contestant("throttled", "token_bucket", "peer"),
    "throttled-py GCRA": Contestant("throttled", "gcra", "peer"),
    "pyrate-limiter log": Contestant("pyrate", "log", "peer", ("zremrangebyscore",), bursts=False),
    "pyrate-limiter token bucket": Contestant("pyrate", "token-bucket", "peer"),
}

PEERS: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.kind == "peer")
DECIDERS: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.decides)
