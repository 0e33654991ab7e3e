"""The HTTP benchmark end to end, very small, and the load client against servers that misbehave."""

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

from benchmarks import BenchmarkError, cli, load, noop, programs
from benchmarks.suite import http
from service.app import create_app
from service.settings import Settings

NAMES = {"check", "check_three_limits", "authorize", "authorize_three_limits"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.contextmanager
def server(answer, seconds=0.0, *, once=False):
    """Answer every request alike, after a while, until the caller is gone; or once, and close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(connection):
            with connection, contextlib.suppress(OSError):
                while connection.recv(65_536):
                    time.sleep(seconds)
                    for part in answer:
                        connection.sendall(part)
                    if once:
                        break

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


def test_the_whole_of_it_on_real_servers(monkeypatch, capsys, run_command, figure):
    monkeypatch.setitem(cli.FULL, "http", http.Http(rounds=2, flood=0.05, pace=0.1))
    assert run_command("http", "--json") == 0
    document = json.loads(capsys.readouterr().out)["http"]
    assert document["faults"] == []
    for count in http.CONNECTIONS:
        for name in NAMES | {"noop"}:
            assert min(figure(document, name, http.RATE, at=count)) > 0
            assert min(figure(document, name, "client_cores", at=count)) > 0
        for name in NAMES:
            assert len(figure(document, name, "ratio", at=count)) == 2
    for name in ("noop", "check", "authorize"):
        assert min(figure(document, name, "p99_ms", http.HALF.label)) > 0


def test_the_noop_has_the_schemas_of_the_check():
    ours = create_app(Settings(policy=http.POLICY, redis="memory://")).openapi()
    theirs = noop.app.openapi()
    asked = theirs["components"]["schemas"]["Check"]
    body = ours["paths"]["/v1/check"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"] == body["properties"]
    for name in ("Decision", "LimitState"):
        assert theirs["components"]["schemas"][name] == ours["components"]["schemas"][name]


def test_the_noop_answers_as_a_check_would():
    with programs.noop() as (host, port):
        response = httpx.post(f"http://{host}:{port}{noop.PATH}", json={"key": "k"})
        refused = httpx.post(f"http://{host}:{port}{noop.PATH}", json={"key": "k", "prompt": "x"})
    assert (response.status_code, refused.status_code) == (200, 422)
    assert response.json()["limits"][0]["remaining"] == 999_999_999


@pytest.mark.parametrize("answer", [[OK], [OK[:-2], OK[-2:]], [OK[:7], OK[7:30], OK[30:]]])
def test_answers_are_counted_however_they_come_apart(answer):
    with server(answer) as address:
        flooded = load.flood(address, [b"x"], 3, 0.05)
        paced = load.pace(address, [b"x"], 3, 0.1, 100)
        sent = load.send(address, [[b"x"] * 5, [b"x"]])
    assert flooded.rate > 0
    assert len(paced.latencies) == 10
    assert sent.answers == [[load.Answer(200, b"{}")] * 5, [load.Answer(200, b"{}")]]


def test_a_server_that_falls_behind_cannot_hide_it():
    """One connection, an answer every 50 ms, a request every 10 ms: the tenth waits for all before it."""
    with server([OK], seconds=0.05) as address:
        latencies = load.pace(address, [b"x"], 1, 0.1, 100).latencies
    assert latencies[-1] >= 10 * 0.05 - 9 * 0.01


def test_answers_come_back_lane_by_lane():
    with server([b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\nno"]) as address:
        sent = load.send(address, [[load.post("/", {})]] * 3 + [[]])
    assert sent.answers == [[load.Answer(429, b"no")]] * 3 + [[]]
    assert len(sent.latencies) == 3


def test_a_lane_may_let_its_next_request_depend_on_an_answer():
    heard = []

    def lane():
        heard.append(load.Answer.parse((yield load.post("/", {}))).body)
        yield load.post("/", {"last": heard[0].decode()})

    with server([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nyo"]) as address:
        sent = load.send(address, [lane()])
    assert heard == [b"yo"]
    assert [answer.body for answer in sent.answers[0]] == [b"yo", b"yo"]


FLOOD = pytest.param(lambda address: load.flood(address, [b"x"], 2, 0.1), id="flood")
PACE = pytest.param(lambda address: load.pace(address, [b"x"], 2, 0.1, 50), id="pace")
SEND = pytest.param(lambda address: load.send(address, [[b"x"]]), id="send")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
    ],
)
@pytest.mark.parametrize("send", [FLOOD, PACE])
def test_another_answer_is_an_error(answer, send):
    with server([answer]) as address, pytest.raises(BenchmarkError, match="other than expected"):
        send(address)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"]
)
def test_half_an_answer_is_an_error(answer):
    with server([answer], once=True) as address, pytest.raises(BenchmarkError):
        load.send(address, [[b"x"]])


@pytest.mark.parametrize("send", [FLOOD, SEND])
def test_a_server_that_is_not_there_is_an_error(send):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()[:2]
    with pytest.raises(BenchmarkError, match=r"127\.0\.0\.1"):
        send(address)


@pytest.mark.parametrize("send", [FLOOD, SEND])
def test_silence_is_an_error(monkeypatch, send):
    monkeypatch.setattr(load, "_PATIENCE", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(BenchmarkError, match="not everything"),
    ):
        send(silent.getsockname()[:2])


def test_a_sidecar_that_does_not_start_says_why(tmp_path):
    with pytest.raises(BenchmarkError, match=r"absent\.yaml"), programs.sidecar(tmp_path / "absent.yaml"):
        pass
