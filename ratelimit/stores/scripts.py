"""The Lua scripts that run in the store, read once from `ratelimit/engine/lua`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_COMMON_PARTS: Final = ("struct", "prelude")
"""The files that every script starts with."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and its SHA-1: the name under which a server keeps it (EVALSHA)."""

    source: str
    sha: str

    @classmethod
    def load(cls, *names: str) -> Script:
        """Read the files `lua/<name>.lua`, with the common parts in front of them."""
        folder = resources.files("ratelimit.engine").joinpath("lua")
        parts = (*_COMMON_PARTS, *names)
        files = [folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in parts]
        source = "\n".join(files)
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


CHECK = Script.load("check")
SETTLE = Script.load("trim", "settle")
REPORT = Script.load("report")
