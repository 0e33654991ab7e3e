"""Which process and which calls charge what an outage admitted."""

import pytest

from ratelimit import Limit
from ratelimit.limiters import charging
from ratelimit.limiters.charging import Charger

from ..outages import Process, Store


@pytest.fixture
def outage():
    """An outage that has admitted a check."""
    store = Store()
    process = Process(store, Limit("requests", "10/day", on_outage="local"))
    store.is_up = False
    process.check()
    return process.outage


@pytest.fixture
def asked():
    return []


@pytest.fixture
def charger(asked):
    """A charger whose store does not answer."""
    return Charger(pytest.fail, pytest.fail, lambda: asked.append("PING"))


def test_p8_close_asks_first_and_charges_nothing_if_nobody_answers(charger, outage, asked):
    charger.close(outage)
    assert asked == ["PING"]
    assert outage.has_buckets


def test_p8_a_child_does_not_charge_what_its_parent_has_admitted(charger, outage, asked, monkeypatch):
    monkeypatch.setattr(charging.os, "getpid", lambda: 0)
    charger.close(outage)
    assert asked == []


def test_p8_after_close_no_charge_is_started(charger, outage):
    charger.close(outage)
    charger.start(outage)
    assert charger._thread is None
