"""The one real server that all contestants share, and what it says of its own work."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ratelimit.stores import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATIENCE: Final = 30.0  # seconds; flushing a million keys takes a while
_BATCH: Final = 5_000  # few enough for Lua's stack and for the server's patience
_MULTIPLY: Final = """
    local first, made = ARGV[1], tonumber(ARGV[2])
    for n = 3 + made, #ARGV do
        for m = 3, 2 + made do
            local start, stop = string.find(ARGV[m], first, 1, true)
            local before, after = string.sub(ARGV[m], 1, start - 1), string.sub(ARGV[m], stop + 1)
            redis.call('COPY', ARGV[m], before .. ARGV[n] .. after)
        end
    end
"""
_SCRIPTS: Final = ("eval", "evalsha")
_OURS: Final = ("config|resetstat", "info")


@dataclass(frozen=True, slots=True)
class Spent:
    """What the server did since it was last told to forget.

    Attributes:
        calls: commands by name, those inside scripts too; none that this module sends.
        microseconds: of processor time inside each command; a script's holds its own commands'.
        process: microseconds of processor time of the whole server: sockets and parsing too.
    """

    calls: dict[str, int]
    microseconds: dict[str, float]
    process: float

    def on(self, *direct: str) -> float:
        """Return the microseconds of scripts, and of these commands, which no script has called."""
        return sum(self.microseconds.get(name, 0.0) for name in (*_SCRIPTS, *direct))


class Server:
    """A running server; see `running`."""

    def __init__(self, url: str, client: Any) -> None:  # noqa: ANN401 - redis-py leaves much untyped
        self.url = url
        self._client = client
        self._cpu = 0.0

    def at(self, database: int) -> str:
        """Return the URL of one of its databases."""
        return f"{self.url}?db={database}"

    def forget(self) -> None:
        """Begin counting anew."""
        self._client.config_resetstat()
        self._cpu = self._used_cpu()

    def spent(self) -> Spent:
        """Return what it did since."""
        process = 1e6 * (self._used_cpu() - self._cpu)
        commands = {
            name.removeprefix("cmdstat_"): stats
            for name, stats in self._client.info("commandstats").items()
            if name.removeprefix("cmdstat_") not in _OURS
        }
        return Spent(
            {name: stats["calls"] for name, stats in commands.items()},
            {name: float(stats["usec"]) for name, stats in commands.items()},
            process,
        )

    def memory(self) -> int:
        """Return the bytes in use, less what connections take."""
        info = self._client.info("memory")
        return int(info["used_memory"] - info["mem_clients_normal"])

    def keys(self, database: int = 0) -> int:
        """Return how many keys there are in a database."""
        return int(self._client.info("keyspace").get(f"db{database}", {}).get("keys", 0))

    def multiply(self, database: int, names: Sequence[str]) -> None:
        """Copy every key that the first of these names has, with what is left of its time, for all others."""
        first, *others = names
        self._client.execute_command("SELECT", database)
        try:
            made = [key for key in self._client.keys("*") if first.encode() in key]
            for start in range(0, len(others), _BATCH):
                self._client.eval(_MULTIPLY, 0, first, len(made), *made, *others[start : start + _BATCH])
        finally:
            self._client.execute_command("SELECT", 0)

    def flush(self) -> None:
        """Forget every key."""
        self._client.flushall(asynchronous=False)

    def _used_cpu(self) -> float:
        info = self._client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server that forgets at the end, on a Unix socket of its own."""
    opened = connect("embedded://", _PATIENCE)
    try:
        yield Server(opened.address, opened.client)
    finally:
        opened.client.close()
        opened.release()
