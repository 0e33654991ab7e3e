"""Single key presses of a terminal, without Enter."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from contextlib import AbstractContextManager
from typing import Any, Self


class KeyPresses(AbstractContextManager["KeyPresses"]):
    """Reads key presses while the block runs. The terminal is then as it was before."""

    _before: list[Any] | None = None

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def wait_for(self, key: str, seconds: float) -> bool:
        """Wait for some seconds; return at once whether a key that is pressed is this one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._before is None:
                time.sleep(left)
            elif select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) == key:
                return True
        return False
