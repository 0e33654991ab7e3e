"""`ca`, `cert`, `key`, `server_name` and `password_file` in a store's URL, for threads and for asyncio."""

import asyncio
import contextlib
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from redis.exceptions import ConnectionError as LostConnection

from ratelimit import AsyncLimiter, InvalidRequest, Limit, Limiter, StoreUnavailable
from ratelimit.stores import connect_async

from .tls import TlsTerminator

LIMIT = Limit("requests", "1000/day", denial_memory=False)
NAME = "store.example"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(authority, tmp_path):
    """The files of a client: its authority, its certificate and key apart, and both in one file."""
    client = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    return tmp_path


@pytest.fixture
def open_terminator(authority, real_url):
    """Open a TLS server whose certificate has only the name `store.example`."""
    with contextlib.ExitStack() as stack:

        def open_one(*, asks_for_certificate=False):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(NAME).configure_cert(context)
            if asks_for_certificate:
                context.verify_mode = ssl.CERT_REQUIRED
                authority.configure_trust(context)
            terminator = TlsTerminator(real_url.removeprefix("unix://"), context)
            stack.callback(terminator.close)
            return terminator

        yield open_one


@pytest.fixture(params=["threads", "asyncio"])
def check_and_ping(request):
    """Check once on a URL, and ping it; return the decision's source, and the ping's error."""

    def run(url):
        with Limiter(url, LIMIT, deadline=3) as limiter:
            source, error = limiter.check("k").source, None
            try:
                limiter.ping()
            except StoreUnavailable as raised:
                error = raised
        return source, error

    async def run_async(url):
        async with AsyncLimiter(url, LIMIT, deadline=3) as limiter:
            source, error = (await limiter.check("k")).source, None
            try:
                await limiter.ping()
            except StoreUnavailable as raised:
                error = raised
        return source, error

    return run if request.param == "threads" else lambda url: asyncio.run(run_async(url))


def test_the_server_name_is_checked_and_sent_where_the_url_has_an_address(
    open_terminator, files, check_and_ping
):
    terminator = open_terminator()
    url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem"
    assert check_and_ping(f"{url}&server_name={NAME}") == ("store", None)
    assert set(terminator.server_names) == {NAME}
    source, error = check_and_ping(url)
    assert source == "outage"
    assert "certificate" in str(error)
    assert "127.0.0.1" in str(error)
    source, error = check_and_ping(f"{url}&server_name=other.example")
    assert source == "outage"
    assert "other.example" in str(error)


def test_a_ca_is_trusted_instead_of_those_of_the_system(open_terminator, files, check_and_ping, monkeypatch):
    url = f"rediss://127.0.0.1:{open_terminator().port}/0?server_name={NAME}"
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))  # the system's, for OpenSSL
    trustme.CA().cert_pem.write_to_path(files / "other.pem")
    assert check_and_ping(url) == ("store", None)
    source, error = check_and_ping(f"{url}&ca={files}/other.pem")
    assert source == "outage"
    assert "certificate" in str(error)


@pytest.mark.parametrize("query", ["ssl_check_hostname=no", "ssl_cert_reqs=none", "ssl_ciphers=ECDHE+AESGCM"])
def test_options_of_redis_py_work_beside_these(open_terminator, files, check_and_ping, query):
    terminator = open_terminator()
    source, error = check_and_ping(
        f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&server_name={NAME}&{query}"
    )
    assert (source, error) == ("store", None)
    if "cipher" not in query:
        url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&{query}"
        assert check_and_ping(url) == ("store", None)


def test_a_key_may_need_a_password(open_terminator, files, check_and_ping):
    terminator = open_terminator(asks_for_certificate=True)
    key = load_pem_private_key((files / "key.pem").read_bytes(), None)
    encryption = BestAvailableEncryption(b"p &")
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (files / "encrypted.pem").write_bytes(encrypted)
    url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&server_name={NAME}&cert={files}/cert.pem"
    assert check_and_ping(f"{url}&key={files}/encrypted.pem&ssl_password=p%20%26") == ("store", None)
    with pytest.raises(InvalidRequest, match="must be a certificate and its private key"):
        check_and_ping(f"{url}&key={files}/encrypted.pem")


@pytest.mark.parametrize("login", ["cert={0}/cert.pem&key={0}/key.pem", "cert={0}/both.pem"])
def test_a_client_shows_its_certificate(open_terminator, files, check_and_ping, login):
    terminator = open_terminator(asks_for_certificate=True)
    url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&server_name={NAME}"
    assert check_and_ping(f"{url}&{login.format(files)}") == ("store", None)
    source, error = check_and_ping(url)
    assert source == "outage"
    assert error is not None


def test_p8_a_connection_that_is_lost_as_soon_as_it_is_open_fails_at_once(real_url):
    """A server refuses a client's certificate after the handshake; a check may come before that is seen."""

    async def run():
        transport = connect_async(real_url, 20).open_transport(20, None)
        connection = await transport._open()
        connection.connection_lost(None)
        with pytest.raises(LostConnection):
            connection.send(b"PING\r\n")
        assert await transport.call("PING") == b"PONG"
        await transport.close()

    asyncio.run(run())


def test_a_certificate_that_is_renewed_is_used_by_the_next_connection(open_terminator, files):
    """The pool of the asyncio client keeps its connection objects, and redis-py their old certificates."""
    terminator = open_terminator(asks_for_certificate=True)
    stranger = trustme.CA().issue_cert("client.example").private_key_and_cert_chain_pem
    renewed = (files / "both.pem").read_bytes()
    url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&server_name={NAME}&cert={files}/both.pem"

    async def run():
        async with AsyncLimiter(url, LIMIT, deadline=20) as limiter:
            await limiter.ping()
            await limiter.check("k")
            stranger.write_to_path(files / "both.pem")
            terminator.end_connections()
            with contextlib.suppress(StoreUnavailable):
                await limiter.ping()  # this may still use the connection that has ended
            with pytest.raises(StoreUnavailable):
                await limiter.ping()
            (files / "both.pem").unlink()
            with pytest.raises(StoreUnavailable, match=r"cert: cannot read .*both\.pem: No such file"):
                await limiter.ping()
            (files / "both.pem").write_bytes(renewed)
            await limiter.ping()
            assert (await limiter.check("k")).source == "store"

    asyncio.run(run())


def test_a_file_that_disappears_later_is_an_outage_that_names_it(open_terminator, files):
    terminator = open_terminator()
    url = f"rediss://127.0.0.1:{terminator.port}/0?ca={files}/ca.pem&server_name={NAME}"
    with Limiter(url, LIMIT, deadline=20) as limiter:
        assert limiter.check("k").source == "store"
        limiter.ping()
        (files / "ca.pem").rename(files / "moved.pem")
        terminator.end_connections()
        assert limiter.check("k").source == "outage"
        with pytest.raises(StoreUnavailable, match=r"ca: cannot read .*ca\.pem: No such file"):
            limiter.ping()
        (files / "moved.pem").rename(files / "ca.pem")
        assert limiter.check("k").source == "store"


def _end_connections(client):
    """End all connections to a store but this client's."""
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.fixture
def user(open_client, real_url):
    """A user of each real server in turn, with the password `old`."""
    client = open_client(real_url)
    client.execute_command("ACL", "SETUSER", "rotating", "reset", "on", ">old", "~*", "+@all")
    yield "rotating"
    client.execute_command("ACL", "DELUSER", "rotating")


@pytest.fixture
def password_file(tmp_path):
    file = tmp_path / "password"
    file.write_text("old\n")
    return file


def test_a_password_that_is_rotated_works_without_a_restart(
    user, password_file, real_url, open_client, make_limiter_on
):
    url = f"unix://{user}@{real_url.removeprefix('unix://')}?password_file={password_file}"
    client = open_client(real_url)
    limiter = make_limiter_on(url, LIMIT)
    assert limiter.check("k").source == "store"
    limiter.ping()
    client.execute_command("ACL", "SETUSER", user, "resetpass", ">new")
    assert limiter.check("k").source == "store"  # connections that are open stay open
    _end_connections(client)
    assert limiter.check("k").source == "outage"
    with pytest.raises(StoreUnavailable) as refused:
        limiter.ping()
    assert refused.value.refused
    password_file.write_text("new")
    assert limiter.check("k").source == "store"
    limiter.ping()


def test_a_password_file_is_read_for_asyncio_too(user, password_file, real_url, open_client):
    async def run():
        url = f"unix://{user}@{real_url.removeprefix('unix://')}?password_file={password_file}"
        async with AsyncLimiter(url, LIMIT, deadline=20) as limiter:
            assert (await limiter.check("k")).source == "store"
            await limiter.ping()
            open_client(real_url).execute_command("ACL", "SETUSER", user, "resetpass", ">new")
            password_file.write_text("new\r\n")
            _end_connections(open_client(real_url))
            for _ in range(5):  # until the event loop has seen that they have ended
                await asyncio.sleep(0)
            await limiter.ping()
            assert (await limiter.check("k")).source == "store"

    asyncio.run(run())


def test_a_password_file_that_disappears_is_an_outage_that_names_it(
    user, password_file, real_url, open_client, make_limiter_on, caplog
):
    url = f"unix://{user}@{real_url.removeprefix('unix://')}?password_file={password_file}"
    limiter = make_limiter_on(url, LIMIT)
    assert limiter.check("k").source == "store"
    limiter.ping()
    password_file.unlink()
    _end_connections(open_client(real_url))
    assert limiter.check("k").source == "outage"
    with pytest.raises(StoreUnavailable, match=r"password_file: cannot read .*password: No such file"):
        limiter.ping()
    assert f"password_file: cannot read {password_file}: No such file or directory" in caplog.text
    password_file.write_text("old")
    assert limiter.check("k").source == "store"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("ca={0}/none.pem", "ca: cannot read {0}/none.pem: No such file or directory"),
        ("ca={0}", "ca: cannot read {0}: Is a directory"),
        ("ca={0}/text", "ca: {0}/text has no certificate in PEM format"),
        ("cert={0}/none.pem", "cert: cannot read {0}/none.pem: No such file or directory"),
        ("cert={0}/cert.pem&key={0}/none.pem", "key: cannot read {0}/none.pem: No such file or directory"),
        ("cert={0}/cert.pem", "cert: {0}/cert.pem must be a certificate and its private key, in PEM format"),
        (
            "cert={0}/cert.pem&key={0}/text",
            "cert: {0}/cert.pem and key: {0}/text must be a certificate and its private key, in PEM format",
        ),
        ("password_file={0}/none", "password_file: cannot read {0}/none: No such file or directory"),
        ("password_file={0}/empty", "password_file: {0}/empty is empty"),
        ("password_file={0}/bytes", "password_file: {0}/bytes must be text in UTF-8"),
        ("password_file=/dev/zero", "password_file: /dev/zero is longer than 65536 bytes"),
        ("password_file=%00", "password_file: cannot read \0: not a path"),
    ],
)
@pytest.mark.parametrize("kind", [Limiter, AsyncLimiter])
def test_a_file_that_cannot_be_used_is_refused_at_the_start(files, kind, query, complaint):
    (files / "text").write_text("not a certificate")
    (files / "empty").write_text("\n")
    (files / "bytes").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest) as refused:
        kind(f"rediss://localhost/0?{query.format(files)}", LIMIT)
    assert str(refused.value) == f"redis: {complaint.format(files)}"
