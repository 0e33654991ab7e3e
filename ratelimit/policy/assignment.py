"""The plan, tenant and block that the policy or an operator assigns to a key or a tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is assigned to one key.

    Attributes:
        plan: the key's plan; None means the plan of its tenant, else the default plan.
        tenant: the account that owns the key; None means the key itself.
        blocked: whether all checks of the key are denied.
    """

    plan: str | None = None
    tenant: str | None = None
    blocked: bool = False


NOT_ASSIGNED = Assignment()


@dataclass(frozen=True, slots=True)
class Assignments:
    """All that operators have assigned at run time.

    Attributes:
        keys: assignments by key.
        tenants: plans by tenant.
    """

    keys: Mapping[str, Assignment] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)


NO_ASSIGNMENTS = Assignments()
