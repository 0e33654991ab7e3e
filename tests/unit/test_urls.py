"""Which store URLs are valid, and that passwords in them are never shown."""

import pytest

from ratelimit import AsyncLimiter, InvalidRequest, Limit, Limiter
from ratelimit.stores import StoreURL, connect

LIMIT = Limit("requests", "5/minute")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("redis://localhost:6379/3", "redis://localhost:6379/3"),
        ("redis://:s3cret@localhost:6379/0", "redis://***@localhost:6379/0"),
        ("redis://user:s3cret@localhost/0", "redis://user:***@localhost/0"),
        ("redis://user:s3%40cret@localhost/0", "redis://user:***@localhost/0"),
        ("redis://user:s3@cret@localhost/0", "redis://user:***@localhost/0"),
        ("rediss://:s3cret@[::1]:6380", "rediss://***@[::1]:6380"),
        ("redis://localhost?password=s3cret", "redis://localhost"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("unix://:s3cret@/run/valkey.sock?db=1", "unix://***@/run/valkey.sock"),
        ("redis+sentinel://u:s3cret@a:1,b:2/main/0", "redis+sentinel://u:***@a:1,b:2/main/0"),
        ("redis+cluster://:s3cret@[::1]:1,b?x=s3cret", "redis+cluster://***@[::1]:1,b"),
        ("embedded://", "embedded://"),
        ("embedded:///var/lib/limits", "embedded:///var/lib/limits"),
        ("memory://name", "memory://name"),
    ],
)
def test_p10_a_store_is_shown_without_its_password(url, shown):
    assert str(StoreURL.parse(url)) == shown
    with Limiter("memory://", LIMIT) as limiter:
        assert limiter.store == "memory://"


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost", "localhost:6379", "http://localhost", "redis", "redis://localhost:0",
        "redis://localhost:port", "redis://localhost:70000", "redis://localhost/name", "unix://", "REDIS:/x",
        "redis+sentinel://h:1", "redis+sentinel://h:1,/s", "redis+sentinel://h:1,i:x/s", "redis+sentinel://h/s/x",
        "redis+cluster://", "redis+cluster://h:0", "redis+cluster://h:1/0", "redis+cluster://:s3cret@h:1,i:70000",
        "redis+cluster:h:1", "redis://[::1", "redis://:s3cret@localhost:port/0",
        "redis://:s3cret/and-more@localhost:6379", "redis://user:s3cret#more@localhost:6379/x",
        "redis://localhost?socket_timeout=s3cret", "postgres://user:s3cret@localhost",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Limiter, AsyncLimiter])
def test_p10_what_names_no_store_is_refused_with_what_does_and_without_a_secret(kind, url):
    with pytest.raises(InvalidRequest) as raised:
        kind(url, LIMIT)
    assert "redis://host:port" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_an_option_that_redis_does_not_know_is_refused_before_the_first_check():
    with pytest.raises(InvalidRequest, match="redis"):
        Limiter("redis://localhost:6379/0?no_such_option=1", LIMIT)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Limiter, AsyncLimiter])
def test_p8_a_deadline_that_makes_no_sense_is_refused(kind, deadline):
    with pytest.raises(InvalidRequest, match="deadline"):
        kind("redis://localhost:6379", LIMIT, deadline=deadline)


def test_unnamed_memory_is_private_and_named_memory_is_shared():
    def used(url):
        with Limiter(url, LIMIT) as first, Limiter(url, LIMIT) as second:
            first.check("k")
            return 5 - second.peek("k").limits[0].remaining

    assert used("memory://") == 0
    assert used("memory://shared-by-two") == 1


def test_p10_nothing_that_knows_a_url_prints_its_password():
    assert "s3cret" not in repr(StoreURL.parse("redis://user:s3cret@localhost/0"))
    store = connect("redis://user:s3cret@localhost/0", 1.0)
    assert "s3cret" not in repr(store)


@pytest.mark.parametrize(
    ("url", "hosts", "service", "server"),
    [
        (
            "redis+sentinel://u:p%40w@a:1,b,[::1]:3/main/2",
            (("a", 1), ("b", 26379), ("::1", 3)),
            "main",
            "redis://u:p%40w@[::1]:7/2",
        ),
        ("rediss+sentinel://a/main", (("a", 26379),), "main", "rediss://[::1]:7/"),
        ("redis+cluster://a,b:2?x=1", (("a", 6379), ("b", 2)), "", "redis://[::1]:7/?x=1"),
        ("rediss+cluster://:pw@a:1", (("a", 1),), "", "rediss://:pw@[::1]:7/"),
    ],
)
def test_a_url_may_name_several_hosts(url, hosts, service, server):
    parsed = StoreURL.parse(url)
    assert (parsed.hosts, parsed.service) == (hosts, service)
    assert parsed.make_server_url(("::1", 7)) == server
