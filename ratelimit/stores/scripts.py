"""The Lua scripts, read once from the files beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_BEFORE: Final = ("struct", "prelude")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 under which a server remembers it (EVALSHA)."""

    source: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read `lua/<name>.lua`, with what every script starts with in front of it."""
        folder = resources.files("ratelimit.engine").joinpath("lua")
        files = [folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in (*_BEFORE, name)]
        source = "\n".join(files)
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


CHECK = Script.load("check")
SETTLE = Script.load("settle")
