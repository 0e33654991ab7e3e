"""The parent of several workers: it starts them, replaces those that end, and stops them."""

from __future__ import annotations

import os
import signal
from typing import Final

from uvicorn.supervisors import Multiprocess

_TICK: Final = 0.05
"""Seconds between two looks at signals while the workers stop."""


_ANSWER_TIMEOUT: Final = 1.0
"""Seconds in which a worker says whether it is ready."""


class Workers(Multiprocess):
    """uvicorn's parent of workers, which also hears signals while its workers drain."""

    _signal = signal.SIGTERM

    def terminate_all(self) -> None:
        """Stop all workers: by SIGTERM, which drains them, or by SIGINT if this process got that."""
        for listener in self.sockets:
            # Otherwise connections would still be made here when no worker accepts them any more.
            listener.close()
        self._send(self._signal)

    def join_all(self) -> None:
        """Wait for all workers. A further signal ends their drain."""
        while any(process.process.is_alive() for process in self.processes):
            for process in self.processes:
                process.process.join(_TICK / len(self.processes))
            if self.signal_queue:
                self.signal_queue.clear()
                self._send(signal.SIGTERM)
        super().join_all()

    def handle_int(self) -> None:
        """Stop without a drain."""
        self._signal = signal.SIGINT
        super().handle_int()

    def handle_hup(self) -> None:
        """Let every worker read the policy again. uvicorn would replace all workers.

        A worker that is still starting reads it anyway, and the signal would end it.
        """
        for process in self.processes:
            if process.is_ready(_ANSWER_TIMEOUT) and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)
