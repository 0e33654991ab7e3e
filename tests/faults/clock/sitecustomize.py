"""Moves the wall clock of a Python process by the seconds in the file FAULTS_CLOCK: eight bytes, a double."""

import mmap
import os
import struct
import time
from pathlib import Path

with Path(os.environ["FAULTS_CLOCK"]).open("rb") as _file:
    _memory = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time, _time_ns = time.time, time.time_ns


def _read_offset():
    return struct.unpack("d", _memory)[0]


time.time = lambda: _time() + _read_offset()
time.time_ns = lambda: _time_ns() + round(_read_offset() * 1e9)
