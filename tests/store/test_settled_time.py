"""P4 and P7: at which time a settlement is charged."""

import struct
import time

from ratelimit import Limit

from ..stored import buckets, put

BASE = 1_700_000_000
HOUR = 3_600_000_000
TOKENS = Limit("tokens", "100/hour", unit="tokens")


def test_p4_the_timestamp_of_a_settlement_is_clamped_too(make_limiter, client):
    limits = make_limiter(TOKENS, max_skew=5.0)
    ahead = time.time() + 3_600
    limits.settle({"key": "k", "input_tokens": 10, "timestamp": ahead})
    bucket = buckets(client, find_store_key(client, ":k"))["tokens"]
    assert bucket.used == 10
    assert bucket.at < (ahead - 1_800) * 1_000_000


def test_p4_a_timestamp_never_charges_a_settlement_before_its_check(make_limiter):
    limits = make_limiter(
        Limit("requests", "9/second"),
        Limit("images", "60/minute", unit="images", charge="settle"),
        max_skew=None,
    )
    held = limits.reserve("k", timestamp=BASE + 30)
    held.settle({"cost": {"images": 10}, "timestamp": BASE})
    [images] = [state for state in limits.peek("k", timestamp=BASE + 30).limits if state.name == "images"]
    assert images.remaining == 50  # Charged half a minute earlier, all would be refilled.


def test_p7_a_refund_after_the_refill_lifts_no_bucket_above_full(make_limiter):
    limits = make_limiter(Limit("tokens", "100/minute", unit="tokens"), max_skew=None)
    held = limits.reserve("k", cost={"tokens": 60}, timestamp=BASE)
    held.settle({"input_tokens": 0, "timestamp": BASE + 60})
    # A late request sees what the refill had not yet given back by its own time.
    assert limits.peek("k", cost={"tokens": 0.001}, timestamp=BASE + 30).limits[0].remaining == 50


def test_p7_a_limit_that_settlements_have_emptied_admits_nothing(make_limiter):
    limits = make_limiter(Limit("images", "10/day", unit="images", charge="settle"), max_skew=None)
    assert limits.check("k", timestamp=BASE)
    limits.settle({"key": "k", "cost": {"images": 10}, "timestamp": BASE})
    assert not limits.check("k", timestamp=BASE)
    assert limits.check("k", timestamp=BASE + 1)


def test_p7_what_was_refilled_since_the_check_pays_for_no_more_than_was_missing(make_limiter, client):
    limits = make_limiter(TOKENS)
    held = limits.reserve("k", cost={"tokens": 10})
    move_back(client, HOUR)
    held.settle({"input_tokens": 60})
    # The 10 of the estimate had come back; the 50 above it are charged now, not an hour ago.
    assert limits.peek("k").limits[0].remaining == 50


def move_back(client, microseconds):
    """Move the bucket of `k` and the record of its reservation back in time: as if that much had passed."""
    bucket_key, record_key = find_store_key(client, ":k"), find_store_key(client, ":R:")
    bucket = buckets(client, bucket_key)["tokens"]
    put(client, bucket_key, tokens=(bucket.used, bucket.at - microseconds))
    record = client.get(record_key).encode("latin-1")
    times = (moment - microseconds for moment in struct.unpack_from("<dd", record, 1))
    client.set(record_key, record[:1] + struct.pack("<dd", *times) + record[17:], keepttl=True)


def find_store_key(client, text):
    """Return the store key that ends with a text, or that has it before what names a reservation."""
    [found] = [name for name in client.scan_iter() if name.endswith(text) or (text == ":R:" and text in name)]
    return found
