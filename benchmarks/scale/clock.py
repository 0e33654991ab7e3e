"""Virtual time: an event loop that never waits, and the clocks that limiters read."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock

START: Final = 1_700_000_000
"""When a simulation begins: seconds since the epoch."""

MICROSECONDS: Final = 1_000_000


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is left to do before it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._clock_resolution = 1e-9  # the base class runs timers that are due within this time

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[object]:
        """Do what the base class asks of a selector: wait for `timeout` seconds."""
        if timeout is None:
            raise RuntimeError("the simulation waits for something that never comes")
        self._now += timeout
        return []

    def read_microseconds(self) -> int:
        """Return the clock of all servers: microseconds since the epoch."""
        return START * MICROSECONDS + round(self._now * MICROSECONDS)

    def read_nanoseconds(self) -> int:
        """Return the clock of all processes, as `time.monotonic_ns` does."""
        return round(self._now * 1_000_000_000) + 3_600_000_000_000  # limiters take 0 for long ago

    def read_wall_nanoseconds(self) -> int:
        """Return the clock of all processes, as `time.time_ns` does."""
        return self.read_microseconds() * 1000

    def _process_events(self, _events: list[object]) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: no other thread has to wake this loop."""


@contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """Give a loop; while it is open, `time.monotonic_ns` and `time.time_ns` are its clock."""
    loop = VirtualLoop()
    clock = mock.patch.object(time, "monotonic_ns", loop.read_nanoseconds)
    wall = mock.patch.object(time, "time_ns", loop.read_wall_nanoseconds)
    with clock, wall:
        try:
            yield loop
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
