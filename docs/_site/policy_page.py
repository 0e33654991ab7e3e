"""Every field of a policy file, from its JSON Schema."""

from __future__ import annotations

from typing import Final

from schemas import make_table

from ratelimit.policy.spec import PolicySpec

URI: Final = "reference/policy.md"

_SECTIONS: Final = {
    "PlanSpec": "A plan, below `plans`",
    "LimitSpec": "A limit, below `limits`",
    "LeaseSpec": "A lease, below `lease`",
    "KeySpec": "A key, below `keys`",
    "TenantSpec": "A tenant, below `tenants`",
}


def make_page() -> str:
    """Return the page as Markdown."""
    schema = PolicySpec.model_json_schema()
    definitions = schema["$defs"]
    lines = [
        "# Every field of the policy file",
        "",
        "Made from the JSON Schema that `ratelimit policy schema` prints. [The policy file](../policy.md)",
        "explains what the fields do together. A field that is not listed is an error.",
        "",
        "## The file",
        "",
        *make_table(schema, definitions),
    ]
    for name in [*_SECTIONS, *sorted(definitions.keys() - _SECTIONS)]:
        if name in definitions:
            lines += [f"## {_SECTIONS.get(name, name)} {{ #{name.lower()} }}", ""]
            lines += [
                definitions[name].get("description", ""),
                "",
                *make_table(definitions[name], definitions),
            ]
    return "\n".join(lines)
