"""Half a line in a history hides no other line."""

import subprocess
import sys

from ratelimit.history import read_history

RECORD = """
import os, resource, sys
from ratelimit import Limit, Limiter
from ratelimit.history import HistoryRecorder

def limit_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

with HistoryRecorder(sys.argv[1]) as recorder:
    limiter = Limiter("memory://half-lines", Limit("requests", "100/day"), deadline=20, observers=[recorder])
    limiter.check("first")
    limit_size(os.path.getsize(sys.argv[1]) * 3 // 2)
    limiter.check("half")
    limiter.check("missing")
    limit_size(resource.RLIM_INFINITY)
    limiter.check("last")
"""


def read_keys(path):
    return [numbered.line.key for numbered in read_history([path])]


def record(path):
    done = subprocess.run([sys.executable, "-c", RECORD, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_lines_after_a_disk_was_full_can_be_read(tmp_path):
    path = tmp_path / "history"
    assert record(path).count("is incomplete") == 1
    assert b'"half"' in path.read_bytes()
    assert read_keys(path) == ["first", "last"]


def test_a_process_adds_its_lines_to_a_file_that_ends_with_half_a_line(tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b'{"timestamp":"2026-11-27T20:37')
    record(path)
    assert read_keys(path)[0] == "first"
