"""The load client against servers that misbehave: it says so, and never hangs."""

import contextlib
import socket
import threading

import pytest

from benchmarks import client, sidecar


@contextlib.contextmanager
def server(answer):
    """Give every connection's first bytes the same answer, then close it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_answers_come_back_lane_by_lane():
    heard = []
    with server(b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\nno") as address:
        run = client.send(*address, [[client.post("/", b"{}")]] * 3, on_answers=heard.append)
    assert [[(answer.status, answer.body) for answer in lane] for lane in run.answers] == [[(429, b"no")]] * 3
    assert sum(heard) == 3


def test_a_lane_may_let_its_next_request_depend_on_an_answer():
    heard = []

    def lane():
        heard.append((yield client.post("/", b"{}")).body)

    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nyo") as address:
        run = client.send(*address, [lane()])
    assert heard == [b"yo"] == [answer.body for answer in run.answers[0]]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"]
)
def test_half_an_answer_is_an_error(answer):
    with server(answer) as address, pytest.raises(client.ClientError):
        client.send(*address, [[client.post("/", b"{}")]])


def test_silence_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(client.ClientError, match="within"):
        client.send(*silent.getsockname()[:2], [[client.post("/", b"{}")]], patience=0.1)


def test_a_sidecar_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(sidecar.SidecarError, match=r"absent\.yaml"),
        sidecar.running(tmp_path / "absent.yaml"),
    ):
        pass
