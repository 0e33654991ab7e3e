"""Histories: every decision as a line in a file, and a check of the lines against the promises."""

from ratelimit.history.checker import verify_history
from ratelimit.history.faults import FaultKind, HistoryFault, HistoryReport
from ratelimit.history.lines import HistoryLine, NumberedLine, read_lines
from ratelimit.history.order import merge_lines, read_history
from ratelimit.history.recorder import HistoryRecorder

__all__ = [
    "FaultKind",
    "HistoryFault",
    "HistoryLine",
    "HistoryRecorder",
    "HistoryReport",
    "NumberedLine",
    "merge_lines",
    "read_history",
    "read_lines",
    "verify_history",
]
