"""What the history checker says about a fault, as one row of a table."""

import dataclasses
from collections import Counter

from ratelimit import Policy
from ratelimit.history import read_history, verify_history

from .load import BURSTS, MAX_REPEATED_COST, POLICY, TASKS


@dataclasses.dataclass(frozen=True)
class Row:
    """What was seen while one thing failed.

    Attributes:
        file: the file of the test.
        test: its name.
        fault: what failed.
        store: on which store.
        allowed: what the promises allow.
        decisions: how many decisions the history has.
        over_admitted: how many of the checker's faults are of this kind.
        lost: the same.
        charged_more: the same.
        denied_without_reason: the same.
        by_on_outage: how many checks the store did not decide.
        hung: how many requests got no answer.
    """

    file: str
    test: str
    fault: str
    store: str
    allowed: str
    decisions: int
    over_admitted: int
    lost: int
    charged_more: int
    denied_without_reason: int
    by_on_outage: int
    hung: int


def read_report(paths, tenant, policy=POLICY, **options):
    """Check the lines of one tenant in some histories."""
    lines = (numbered for numbered in read_history(paths) if numbered.line.tenant == tenant)
    return verify_history(lines, Policy.from_text(policy), **options)


def describe_faults(report):
    """Return the first faults, to be shown when a test fails."""
    counts = Counter(fault.kind for fault in report.faults)
    return "\n".join([str(dict(counts)), *(str(fault) for fault in report.faults[:12])])


def sum_by_bucket(report, *kinds):
    """Return the sum of the amounts by the limit's name and the bucket's owner."""
    sums = Counter()
    for fault in report.select_faults(*kinds):
        owner = "" if fault.limit == "tokens" else fault.key
        sums[fault.limit, owner] += fault.amount
    return sums


def assert_only_forgotten(report, times=1):
    """At most one burst of each bucket was admitted again for each time that the store forgot it.

    A check that is repeated with a request id that the store has forgotten is charged again.
    """
    for kind in ("over-admitted", "lost"):
        for (limit, owner), amount in sum_by_bucket(report, kind).items():
            assert amount <= times * BURSTS[limit] + 1, (
                f"{kind}: {limit} of {owner}\n{describe_faults(report)}"
            )
    charged = [fault for fault in report.select_faults("charged-more") if fault.amount <= MAX_REPEATED_COST]
    assert len(charged) <= 2 * TASKS, f"more request ids than were in use\n{describe_faults(report)}"
    others = [fault for fault in report.faults if fault.kind not in {"over-admitted", "lost"}]
    others = [fault for fault in others if fault not in charged]
    assert not others, describe_faults(report)


def assert_sound(report):
    """No promise was broken."""
    assert report.is_sound, describe_faults(report)
