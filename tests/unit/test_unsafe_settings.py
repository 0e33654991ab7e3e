"""Warnings at the start for settings that are not safe."""

import pytest

from ratelimit import Policy
from service.cli.warnings import find_unsafe_settings
from service.settings import Settings

SAFE = {
    "policy": "policy.yaml",
    "host": "127.0.0.1",
    "gateway_token": "a-token-for-gateways",
    "key_pepper": "a-pepper-of-22-letters",
}


def find(policy="", **changes):
    text = policy + "plans: {free: {limits: {requests: {rate: 5/minute}}}}"
    settings = Settings(**{**SAFE, **changes})
    return list(find_unsafe_settings(settings, Policy.from_text("unknown_keys: deny\n" + text)))


def test_safe_settings_have_no_warning():
    assert find() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_gateway_token(host):
    assert find(host=host, gateway_token=None) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "limiter.internal"])
def test_other_addresses_need_one(host):
    [warning] = find(host=host, gateway_token=None)
    assert host in warning
    assert "RATELIMIT_GATEWAY_TOKEN" in warning


def test_a_unix_socket_needs_none_but_grpc_beside_it_does(tmp_path):
    changes = {"uds": str(tmp_path / "socket"), "host": "0.0.0.0", "gateway_token": None}
    assert find(**changes, grpc_port=0) == []
    assert len(find(**changes, grpc_port=8081)) == 1


@pytest.mark.parametrize(("length", "warns"), [(15, True), (16, False)])
def test_a_pepper_needs_sixteen_characters(length, warns):
    pepper = "x" * length
    warnings = find(key_pepper=pepper)
    assert [text for text in warnings if "key_pepper is shorter than 16" in text] == warnings
    assert bool(warnings) == warns
    assert pepper not in "".join(warnings)


def test_no_pepper_and_unknown_keys_on_the_default_plan_have_warnings():
    text = "plans: {free: {limits: {requests: {rate: 5/minute}}}}"
    settings = Settings(**{**SAFE, "key_pepper": None})
    warnings = list(find_unsafe_settings(settings, Policy.from_text(text)))
    assert len(warnings) == 2
    assert "no key_pepper" in warnings[0]
    assert "unknown_keys" in warnings[1]
