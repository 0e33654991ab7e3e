"""P10: masked identifiers, and the identifiers of secrets."""

import hashlib
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit import Limit, Limiter
from ratelimit.request.privacy import identifier_of, mask

anything = st.text(min_size=1, max_size=300)
identifiers = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)


@given(identifiers)
def test_p10_a_mask_never_shows_all_of_an_identifier(identifier):
    masked = mask(identifier)
    shown = masked.replace("…", "", 1)
    assert masked != identifier
    assert len(shown) < len(identifier)
    assert len(shown) <= 9
    assert len(shown) <= len(identifier) * 3 // 4


def test_a_mask_is_enough_to_recognise_an_identifier():
    assert mask("vk_9f3a51e7c21") == "vk_9f3…c21"
    assert mask("vk_9") == "vk…"
    assert mask("k") == "…"
    assert mask("") == "…"


@given(anything, anything)
def test_p10_an_identifier_depends_on_the_secret_and_on_the_pepper(secret, pepper):
    assert identifier_of(secret, pepper) == identifier_of(secret, pepper)
    assert identifier_of(secret, pepper) != identifier_of(secret + "x", pepper)
    assert identifier_of(secret, pepper) != identifier_of(secret, pepper + "x")


@given(anything, anything)
def test_an_identifier_is_a_valid_key(secret, pepper):
    identifier = identifier_of(secret, pepper)
    assert identifier.isascii()
    assert identifier.startswith("vk_")
    assert len(identifier) == 3 + 32
    assert secret not in identifier or len(secret) < 8


@given(anything, anything)
@example("secret", "p" * 64)
@example("secret", "p" * 65)  # longer than a block, so its hash is the key
def test_an_identifier_is_hmac_sha256(secret, pepper):
    expected = hmac.new(pepper.encode(), secret.encode(), hashlib.sha256).hexdigest()[:32]
    assert identifier_of(secret, pepper) == f"vk_{expected}"


@pytest.mark.parametrize("raw", [b"\xff\xfe\x80", bytes(range(256))])
def test_a_secret_may_be_any_bytes(raw):
    assert identifier_of(raw.decode("utf-8", "surrogateescape"), "pepper")


def test_p10_a_decision_tells_no_whole_key():
    with Limiter("memory://", Limit("requests", "5/minute")) as limiter:
        decision = limiter.check("vk_9f3a51e7c21")
    assert "vk_9f3a51e7c21" not in repr(decision)
    assert "vk_9f3a51e7c21" not in str(decision.as_dict())
