"""Who is compared: each used as its own documentation advises, all on the same server and socket.

A contestant is a module with two classes, `Blocking` and `Asyncio`. A child process imports only
the one that it plays (benchmarks/worker.py), so none pays for another's imports or threads.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Quota

CONNECTIONS: Final = 256
"""As many as there are tasks at most. With redis-py's own 100 the 101st task fails, and waiting in
line for one of 16 or 64 was no faster."""

OURS: Final = "ratelimit"
EMPTY: Final = "redis-py, empty script"
BUCKET: Final = "redis-py, bucket script"
THROTTLED: Final = "throttled-py token bucket"


class Blocking(Protocol):
    """A contestant as threads use it."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None: ...

    def check(self, key: str, cost: int) -> bool:
        """Take the cost from every quota of a key; return whether all admitted it."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


class Asyncio(Protocol):
    """A contestant as tasks use it."""

    def __init__(self, url: str, quotas: Sequence[Quota], variant: str) -> None: ...

    async def open(self) -> None:
        """Do what needs the running loop."""
        ...

    async def check(self, key: str, cost: int) -> bool:
        """See `Blocking.check`."""
        ...

    async def close(self) -> None:
        """See `Blocking.close`."""
        ...


@dataclass(frozen=True, slots=True)
class Contestant:
    """Where to find a contestant, and what holds of it.

    Attributes:
        module: in this package.
        variant: which of the module's several ways.
        kind: `plain` is no limiter with an interface of its own, but what one would write by hand.
        direct: the commands that it sends besides scripts, whose time inside Redis is its own too.
        decides: false of what admits everything.
        bursts: whether a burst may be larger or smaller than the count.
    """

    module: str
    variant: str
    kind: Literal["ours", "peer", "plain"]
    direct: tuple[str, ...] = ()
    decides: bool = True
    bursts: bool = True

    def blocking(self, url: str, quotas: Sequence[Quota]) -> Blocking:
        """Make it for threads."""
        made: Blocking = self._module().Blocking(url, quotas, self.variant)
        return made

    def asyncio(self, url: str, quotas: Sequence[Quota]) -> Asyncio:
        """Make it for tasks."""
        made: Asyncio = self._module().Asyncio(url, quotas, self.variant)
        return made

    def _module(self) -> Any:  # noqa: ANN401 - the protocols above say what is in it
        return importlib.import_module(f"benchmarks.contestants.{self.module}")


CONTESTANTS: Final[dict[str, Contestant]] = {
    OURS: Contestant("ours", "", "ours"),
    EMPTY: Contestant("plain", "empty", "plain", decides=False),
    BUCKET: Contestant("plain", "bucket", "plain"),
    "limits fixed window": Contestant("by_limits", "fixed-window", "peer", bursts=False),
    "limits moving window": Contestant("by_limits", "moving-window", "peer", bursts=False),
    "limits sliding window": Contestant("by_limits", "sliding-window-counter", "peer", bursts=False),
    THROTTLED: Contestant("by_throttled", "token_bucket", "peer"),
    "throttled-py GCRA": Contestant("by_throttled", "gcra", "peer"),
    "pyrate-limiter log": Contestant("by_pyrate", "log", "peer", ("zremrangebyscore",), bursts=False),
    "pyrate-limiter token bucket": Contestant("by_pyrate", "token-bucket", "peer"),
}

PEERS: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.kind == "peer")
DECIDERS: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.decides)
