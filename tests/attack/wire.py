"""Raw connections: bytes as an attacker writes them, which no HTTP client would send."""

import asyncio
import contextlib
import re

SILENCE = 0.3
"""Seconds without a byte after which a connection is taken to have no more answers."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def send_alone(port, *messages, silence=SILENCE):
    """Send each message over a connection of its own, all at the same time; return all that came back.

    A message is bytes, or a list of pieces that are sent one after the other with a pause between them.
    """
    return asyncio.run(_send_alone(port, messages, silence))


async def _send_alone(port, messages, silence):
    return await asyncio.gather(*(_exchange(port, message, silence) for message in messages))


async def _exchange(port, message, silence):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        for piece in [message] if isinstance(message, bytes) else message:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0 if isinstance(message, bytes) else 0.05)
        # The first answer may take long on a busy machine; after it, silence is the end.
        received = await asyncio.wait_for(reader.read(65_536), 10)
        while piece := await asyncio.wait_for(reader.read(65_536), silence):
            received += piece
    except (TimeoutError, OSError):
        pass  # nothing more came; what has come is returned
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return received


def list_statuses(received):
    """Return the status of each answer in what came back over a connection."""
    return [int(status) for status in _STATUS.findall(received)]


def send_in_turn(port, messages, *, connections=8):
    """Send many requests over kept connections, each after the answer to the one before it.

    Returns the status and the body of the answer to each message, in the order of the messages; a status of
    0 where no answer came. After an answer that closes its connection, the next request opens another.
    """
    return asyncio.run(_send_in_turn(port, messages, connections))


async def _send_in_turn(port, messages, connections):
    answers = [(0, b"")] * len(messages)
    numbers = iter(range(len(messages)))

    async def work():
        connection = None
        for number in numbers:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = connection
            writer.write(messages[number])
            try:
                status, body, closes = await asyncio.wait_for(_read_answer(reader), 10)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                status, body, closes = 0, b"", True
            answers[number] = status, body
            if closes:
                writer.close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return answers


async def _read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    is_chunked = b"\r\ntransfer-encoding: chunked" in head
    body = b"" if is_chunked else await reader.readexactly(int(length[1]) if length else 0)
    status = int(head.split(b" ", 2)[1])
    return status, body, is_chunked or b"\r\nconnection: close" in head


def write_request(method, path, *headers, body=b"", length=None):
    """Return the bytes of a request.

    Args:
        method: the method.
        path: the target.
        headers: lines of the head as bytes, without their ends.
        body: the body.
        length: the value of Content-Length; the body's length if None, no such header if it is empty.
    """
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: x", *headers]
    if length is None and (body or method in {"POST", "PUT"}):
        length = str(len(body)).encode()
    if length:
        lines.append(b"Content-Length: " + length)
    return b"\r\n".join([*lines, b"", body])
