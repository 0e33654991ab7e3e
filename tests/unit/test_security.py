"""The options of a store's URL for TLS and passwords: taken out, added, or refused."""

import pytest

from ratelimit import InvalidRequest
from ratelimit.stores import StoreURL
from ratelimit.stores.security import Security, add_security, take_security


@pytest.mark.parametrize(
    ("url", "plain", "security"),
    [
        ("redis://u:p@h:1/2?db=3", "redis://u:p@h:1/2?db=3", Security()),
        (
            "rediss://u:p%3F@h:1/2?ca=/a&db=3&cert=/b&key=/c&server_name=n&ssl_password=p%26",
            "rediss://u:p%3F@h:1/2?db=3&ssl_password=p%26",
            Security(ca="/a", cert="/b", key="/c", server_name="n", key_password="p&"),
        ),
        ("rediss://h?ca=%2Fa%20b%2Bc", "rediss://h", Security(ca="/a b+c")),
        ("unix:///s?password_file=/p", "unix:///s", Security(password_file="/p")),
        ("unix://u@/s?password_file=/p&db=1", "unix:///s?db=1", Security(password_file="/p", user="u")),
        ("redis://u%40x@h/1?password_file=/p", "redis://h/1", Security(password_file="/p", user="u@x")),
    ],
)
def test_options_are_taken_out_and_the_rest_stays_as_it_is(url, plain, security):
    assert take_security(url) == (plain, security)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://h?ca=/a", "the option ca is for TLS only; use rediss:// instead of redis://"),
        ("unix:///s?server_name=n", "the option server_name is for TLS only"),
        ("embedded://?password_file=/p", "embedded:// has no options"),
        ("memory://?ca=/p", "memory:// has no options"),
        ("rediss://h?key=/k", "the option key needs the option cert"),
        ("rediss://h?ca=", "the option ca is empty"),
        ("rediss://h?ca=/a&ca=/b", "has the option ca twice"),
        ("rediss://h?ca=/a&ssl_ca_certs=/b", "has the options ca and ssl_ca_certs; give one of them"),
        (
            "rediss://h?ca=/a&ssl_validate_ocsp_stapled=1",
            "the options ca, cert, key, server_name do not go with",
        ),
        ("redis://:s3cret@h?password_file=/p", "has a password and a password_file; give one of them"),
        ("unix:///s?password=s3cret&password_file=/p", "has a password and a password_file"),
    ],
)
def test_options_that_make_no_sense_are_refused(url, complaint):
    for parse in (take_security, StoreURL.parse):
        with pytest.raises(InvalidRequest) as refused:
            parse(url)
        assert f"redis: {complaint}" in str(refused.value)
        assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "options", "password", "whole"),
    [
        ("redis://h/1", {}, None, "redis://h/1"),
        ("redis://h/1", {"ca": None}, "p/@ ?#", "redis://:p%2F%40%20%3F%23@h/1"),
        ("redis://u@h/1?db=2", {}, "p", "redis://u:p@h/1?db=2"),
        ("redis://u:@h", {"password_file": "/p"}, None, "redis://u:@h?password_file=/p"),
        ("unix:///s", {}, "p", "unix://:p@/s"),
        ("rediss://h?db=1", {"ca": "/a b+c", "cert": "/d"}, None, "rediss://h?db=1&ca=/a%20b%2Bc&cert=/d"),
        (
            "redis+cluster://a:1,b:2",
            {"password_file": "/p"},
            None,
            "redis+cluster://a:1,b:2?password_file=/p",
        ),
    ],
)
def test_options_are_added(url, options, password, whole):
    assert add_security(url, options, password) == whole


def test_what_is_added_is_taken_out_again():
    options = {"ca": "/a?&=+ %#é", "server_name": "n", "password_file": "/p"}
    assert take_security(add_security("rediss://u@h:1/0", options)) == (
        "rediss://h:1/0",
        Security(**options, user="u"),
    )


@pytest.mark.parametrize("url", ["redis://:s3cret@h", "redis://u:s3cret@h", "embedded://", "memory://x"])
def test_a_password_is_added_only_where_one_is_missing(url):
    with pytest.raises(InvalidRequest) as refused:
        add_security(url, {}, "an0ther")
    assert "redis_password" in str(refused.value)
    assert not {"s3cret", "an0ther"} & set(str(refused.value).split())


def test_the_user_and_the_password_of_the_key_are_not_shown():
    shown = repr(Security(ca="/a", user="s3cret", key_password="an0ther"))
    assert "s3cret" not in shown
    assert "an0ther" not in shown
