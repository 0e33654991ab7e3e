"""A short soak: everything mixed while the store fails over, and nothing grows or goes wrong."""

import pytest

from .page import write_page
from .plot import draw_soak
from .soak import GROWING, Sample, SoakResult, run_soak
from .verdict import list_faults

SECONDS = 60


@pytest.mark.timeout(240)
def test_p1_p5_p6_p8_p11_everything_mixed_keeps_every_promise(tmp_path, short_dir):
    result = run_soak(short_dir / "soak", SECONDS, failover_every=30)
    assert list_faults(result, is_long=False) == []
    assert len(result.failovers) == 1
    assert result.reloads > SECONDS / 4
    assert result.history["decisions"] > 1_000
    assert result.history["settlements"] > 100
    assert result.history["sources"]["outage"] > 0, "the failover must have been noticed"
    write_page(tmp_path / "soak.md", result, "2026-01-01", "abc")
    draw_soak(result, tmp_path / "soak")
    assert "| memory of the store, MB |" in (tmp_path / "soak.md").read_text()
    assert (tmp_path / "soak.svg").exists()


def make_result(**last):
    """Return a result of 100 seconds, in whose last half some figures are others."""
    first = {"answers": 10, "p50": 1.0, "p99": 3.0, "sidecar": 100.0, "store": 10.0, "descriptors": 20}
    samples = [
        Sample(float(second), **(first if second < 60 else {**first, **last})) for second in range(100)
    ]
    return SoakResult(samples=samples, history={"sound": True, "faults": []})


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"sidecar": 106.0}, "sidecar grew by 6.0%"),
        ({"store": 12.0}, "store grew by 20.0%"),
        ({"descriptors": 22}, "descriptors changed by 10.0%"),
        ({"p99": 6.0}, "p99 grew by 100%"),
    ],
)
def test_what_grows_is_a_fault(last, message):
    assert list_faults(make_result(), is_long=True) == []
    assert list_faults(make_result(**last), is_long=True) == [message]
    assert set(last) <= set(GROWING)
