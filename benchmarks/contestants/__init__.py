"""The contestants: each used as its own documentation advises, all on the same server and socket.

The functions `blocking` and `asyncio` of a module return a `check(key, cost)` that takes the cost from every
quota of the key and returns whether all admitted it. A child process imports only its own contestant.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

# As many as there are tasks at most. With redis-py's own 100 the 101st task fails, and waiting for one of 16
# or 64 was no faster.
CONNECTIONS: Final = 256
OURS: Final = "ratelimit"
EMPTY: Final = "redis-py, empty script"
BUCKET: Final = "redis-py, bucket script"
THROTTLED: Final = "throttled-py token bucket"

Check = Callable[[str, int], bool]
AsyncCheck = Callable[[str, int], Awaitable[bool]]


class Contestant(NamedTuple):
    module: str  # in this package
    variant: str  # which of the module's several ways
    # `plain`: no limiter, but what one would write by hand; `observed`: ours with observers
    kind: Literal["ours", "peer", "plain", "observed"]
    direct: tuple[str, ...] = ()  # commands sent besides scripts, whose time inside Redis is its own too
    decides: bool = True  # false of what admits everything
    bursts: bool = True  # whether a burst may be larger or smaller than the count


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
    "metrics": Contestant("ours", "metrics", "observed"),
    "metrics of several workers": Contestant("ours", "workers", "observed"),
    "all that the sidecar has": Contestant("ours", "all", "observed"),
}
OBSERVED: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.kind == "observed")
COMPARED: Final = tuple(name for name in CONTESTANTS if name not in OBSERVED)
PEERS: Final = tuple(name for name, contestant in CONTESTANTS.items() if contestant.kind == "peer")
FEW: Final = (OURS, "limits fixed window", THROTTLED)  # of a quick run
DECIDERS: Final = tuple(name for name in COMPARED if CONTESTANTS[name].decides)
