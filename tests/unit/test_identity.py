"""Whose request it is: a client can forge neither the address nor get round the hash of its secret."""

from ipaddress import ip_network

import pytest
from starlette.requests import HTTPConnection

from ratelimit.web.identity import key_of_address, key_of_secret
from service.headers import Headers
from service.identity import find_client_address

TRUSTED = [ip_network("10.0.0.0/8")]


def find_address(peer, *forwarded):
    headers = [(b"x-forwarded-for", hops.encode()) for hops in forwarded]
    request = HTTPConnection({"type": "http", "headers": headers, "client": peer and (peer, 4711)})
    return find_client_address(request, Headers(request), TRUSTED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # no proxy: the client wrote the header
        ("10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # the proxy wrote the last address
        ("10.0.0.1", ["198.51.100.1", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (None, ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # a Unix socket
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # a socket for IPv4 and IPv6
        ("10.0.0.1", ["203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7, 10.0.0.2:4711"], "203.0.113.7"),  # some proxies write ports
    ],
)
def test_p1_a_client_cannot_choose_its_bucket_with_a_forged_address(peer, forwarded, expected):
    assert find_address(peer, *forwarded) == expected


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7:4711", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:4711", "203.0.113.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::99"),  # the same network of a site
    ],
)
def test_p1_an_address_is_the_same_however_a_proxy_writes_it(written, address):
    assert key_of_address(written, "pepper") == key_of_address(address, "pepper")
    assert key_of_address(written, "pepper") != key_of_address("unknown", "pepper")


@pytest.mark.parametrize("written", ["", "203.0.113.7:x", "[203.0.113.7", "[2001:db8::1]x", "a:1", "1.2.3:4"])
def test_p1_what_is_no_address_counts_as_unknown(written):
    assert key_of_address(written, "pepper") == key_of_address("unknown", "pepper")


def test_p10_a_secret_is_never_the_key_itself():
    key = key_of_secret(" sk-live-1234567890 ", "pepper")
    assert key.startswith("vk_")
    assert "1234567890" not in key
    assert key == key_of_secret("sk-live-1234567890", "pepper")
