"""The HTTP benchmark end to end, very small, and its load client against servers that misbehave."""

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

from benchmarks import __main__ as command
from benchmarks import http, load, noop
from benchmarks.client import ClientError
from service.app import create_app
from service.settings import Settings

TINY = http.Size(rounds=2, flood=0.05, pace=0.1)
NAMES = {"check", "check_three_limits", "authorize", "authorize_three_limits"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.contextmanager
def server(answer, seconds=0.0):
    """Answer every request alike, after a while, until the caller is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(connection):
            with connection, contextlib.suppress(OSError):
                while connection.recv(65_536):
                    time.sleep(seconds)
                    for part in answer:
                        connection.sendall(part)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_whole_of_it_on_real_servers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(http, "Size", lambda: TINY)
    assert command.main(["http", "--json", "--results", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out)["http"]
    assert figures["faults"] == []
    assert set(figures["ratios"]) == NAMES
    for ratio in figures["ratios"].values():
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert set(figures["half_load_p99_ms"]) == {"noop", "check", "authorize"}
    assert all(p99["min"] > 0 for p99 in figures["half_load_p99_ms"].values())
    assert set(figures["by_connections"]) == {"1", "8", "64"}
    for contestants in figures["by_connections"].values():
        assert set(contestants) == {"noop", *NAMES}
        for one in contestants.values():
            assert one["requests_per_second"]["min"] > 0
            assert one["client_cores"] > 0


def test_the_noop_has_the_schemas_of_the_check():
    ours = create_app(Settings(policy=http.POLICY, redis="memory://")).openapi()
    theirs = noop.app.openapi()
    asked = theirs["components"]["schemas"]["Check"]
    body = ours["paths"]["/v1/check"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"] == body["properties"]
    for name in ("Decision", "LimitState"):
        assert theirs["components"]["schemas"][name] == ours["components"]["schemas"][name]


def test_the_noop_answers_as_a_check_would():
    with noop.running() as (host, port):
        response = httpx.post(f"http://{host}:{port}{noop.PATH}", json={"key": "k"})
        refused = httpx.post(f"http://{host}:{port}{noop.PATH}", json={"key": "k", "prompt": "x"})
    assert (response.status_code, refused.status_code) == (200, 422)
    assert response.json()["limits"][0]["remaining"] == 999_999_999


@pytest.mark.parametrize("answer", [[OK], [OK[:-2], OK[-2:]], [OK[:7], OK[7:30], OK[30:]]])
def test_answers_are_counted_however_they_come_apart(answer):
    with server(answer) as address:
        flooded = load.flood(address, [b"x"], 3, 0.05)
        paced = load.pace(address, [b"x"], 3, 0.1, 100)
    assert flooded.rate > 0
    assert len(paced.latencies) == 10


def test_a_server_that_falls_behind_cannot_hide_it():
    """One connection, an answer every 50 ms, a request every 10 ms: the tenth waits for all before it."""
    with server([OK], seconds=0.05) as address:
        latencies = load.pace(address, [b"x"], 1, 0.1, 100).latencies
    assert latencies[-1] >= 10 * 0.05 - 9 * 0.01


@pytest.mark.parametrize(
    "answer",
    [
        [b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n"],
        [b"not HTTP at all\r\n\r\n"],
    ],
)
@pytest.mark.parametrize("send", [load.flood, lambda *given: load.pace(*given, 50)])
def test_another_answer_is_an_error(answer, send):
    with server(answer) as address, pytest.raises(ClientError, match="other than expected"):
        send(address, [b"x"], 2, 0.1)


def test_a_server_that_is_not_there_or_hangs_up_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()[:2]
    with pytest.raises(ClientError, match=r"127\.0\.0\.1"):
        load.flood(address, [b"x"], 1, 0.1)


def test_silence_is_an_error(monkeypatch):
    monkeypatch.setattr(load, "_PATIENCE", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ClientError, match="not everything"),
    ):
        load.flood(silent.getsockname()[:2], [b"x"], 1, 0.05)
