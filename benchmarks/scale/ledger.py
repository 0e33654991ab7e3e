"""What was admitted, kept apart from the limiters: does P1 hold for every bucket and every window?

In a window [a, b] at most burst + rate · (b - a) + what was out on lease at a may be admitted. With S the sum
of what was admitted, and L what is out on lease, that is

    S(b) - rate · b  -  (S(before a) - rate · a + L(a))  -  burst  <=  0

for all a <= b: the first part less the least of the second part so far. So one pass over the admissions
checks all windows. It counts in whole numbers, tokens times the period, and is exact.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ratelimit.engine.simulation import BucketId
from ratelimit.policy.shape import Shape

FLOAT_ERROR: Final = 1e-9
"""Tokens by which the doubles of a bucket may be wrong."""


@dataclass(slots=True)
class Account:
    """One bucket. Amounts are tokens times the period, times are microseconds."""

    shape: Shape
    spent: int = 0
    leased: int = 0
    least: int | None = None  # of S - rate · a + L
    least_plain: int | None = None  # the same without L
    worst: int = -(10**30)  # excess of a window over its bound
    worst_plain: int = -(10**30)  # over burst + rate · (b - a) alone
    most_leased: int = 0

    def note_time(self, t: int) -> int:
        """Note that a window may begin at `t`; return rate · t."""
        refilled = int(self.shape.count) * t
        start = self.spent - refilled
        self.least = start + self.leased if self.least is None else min(self.least, start + self.leased)
        self.least_plain = start if self.least_plain is None else min(self.least_plain, start)
        return refilled

    def spend(self, amount: int, t: int) -> None:
        refilled = self.note_time(t)
        self.spent += amount
        end = self.spent - refilled - int(self.shape.burst * self.shape.period)
        assert self.least is not None  # noqa: S101 - note_time has set both
        assert self.least_plain is not None  # noqa: S101 - likewise
        self.worst = max(self.worst, end - self.least)
        self.worst_plain = max(self.worst_plain, end - self.least_plain)


@dataclass
class Ledger:
    """All buckets, and who has what on lease."""

    accounts: dict[BucketId, Account] = field(default_factory=dict)
    _out: Counter[tuple[int, BucketId]] = field(default_factory=Counter)

    def note_spent(self, bucket_id: BucketId, shape: Shape, cost: float, t: int) -> None:
        """Note what the store admitted, or a process without it."""
        account = self._find(bucket_id, shape)
        account.spend(round(cost * shape.period), t)

    def note_lease(self, sidecar: int, bucket_id: BucketId, shape: Shape, cost: float, t: int) -> None:
        """Note what the store gave out on lease; a negative cost was given back, spent or lost."""
        account, amount = self._find(bucket_id, shape), round(cost * shape.period)
        account.note_time(t)
        account.leased += amount
        account.most_leased = max(account.most_leased, account.leased)
        self._out[sidecar, bucket_id] += amount

    def note_spent_lease(self, sidecar: int, bucket_id: BucketId, shape: Shape, cost: float, t: int) -> None:
        """Note what a sidecar admitted from its lease."""
        self.note_spent(bucket_id, shape, cost, t)
        self.note_lease(sidecar, bucket_id, shape, -cost, t)

    def lose(self, sidecar: int, t: int) -> float:
        """Note that a sidecar died with its leases; return how many tokens it had."""
        lost = 0.0
        for owner, bucket_id in [
            entry for entry, amount in self._out.items() if entry[0] == sidecar and amount
        ]:
            shape = self.accounts[bucket_id].shape
            cost = self._out[owner, bucket_id] / shape.period
            self.note_lease(sidecar, bucket_id, shape, -cost, t)
            lost += cost
        return lost

    def count_leased(self, bucket_id: BucketId) -> float:
        """Return the tokens of a bucket that are out on lease."""
        account = self.accounts.get(bucket_id)
        return account.leased / account.shape.period if account else 0.0

    def find_excess(self, *, plain: bool = False) -> float:
        """Return the tokens that the worst window of any bucket had above its bound; at least 0.

        Args:
            plain: compare with the bound without leases instead.
        """
        worst = 0.0
        for account in self.accounts.values():
            found = (account.worst_plain if plain else account.worst) / account.shape.period
            if found > account.shape.tolerance + FLOAT_ERROR:
                worst = max(worst, found)
        return worst

    def find_most_leased(self) -> float:
        """Return the most tokens of one bucket that were out on lease at once."""
        return max((a.most_leased / a.shape.period for a in self.accounts.values()), default=0.0)

    def _find(self, bucket_id: BucketId, shape: Shape) -> Account:
        account = self.accounts.get(bucket_id)
        if account is None:
            account = self.accounts[bucket_id] = Account(shape)
        return account
