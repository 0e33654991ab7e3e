"""Every endpoint and field of the sidecar, from its OpenAPI document."""

from __future__ import annotations

import re
from typing import Any, Final

from project_pages import ROOT
from schemas import describe_type, make_table

from service.app import create_app
from service.settings import Settings

URI: Final = "reference/http.md"


def make_page() -> str:
    """Return the page as Markdown."""
    settings = Settings(policy=ROOT / "examples/policies/starter.yaml", redis="memory://", admin_token="docs")  # noqa: S106 - no server is started
    document = create_app(settings).openapi()
    schemas = document["components"]["schemas"]
    lines = [
        "# HTTP, every field",
        "",
        f"Made from the OpenAPI document of version {document['info']['version']}, which a running",
        "sidecar serves at `/openapi.json`, and at `/docs` with forms to try it.",
        "[HTTP](../http.md) explains the endpoints.",
        "",
    ]
    for path, operations in document["paths"].items():
        if path == "/v1/authorize":  # any method, with the same answers
            lines += _describe_operation(f"`{path}`, any method", operations["get"], schemas)
            continue
        for method, operation in operations.items():
            lines += _describe_operation(f"`{method.upper()} {path}`", operation, schemas)
    for name, schema in schemas.items():
        lines += [f"## {name} {{ #{name.lower()} }}", "", _first_paragraph(schema), ""]
        lines += _with_notes(schema, make_table(schema, schemas, with_required=False))
    return "\n".join(lines)


def _describe_operation(heading: str, operation: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    lines = [f"## {heading}", "", _first_paragraph(operation), ""]
    if parameters := operation.get("parameters"):
        lines += ["| parameter | in | type | |", "|---|---|---|---|"]
        for one in parameters:
            text = (one.get("description") or one["schema"].get("description") or "").replace("|", "\\|")
            must = "; **required**" if one.get("required") else ""
            kind = describe_type(one["schema"], schemas)
            lines.append(f"| `{one['name']}` | {one['in']} | {kind} | {text}{must} |")
        lines.append("")
    for media in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolve(media["schema"], schemas)
        if schema.get("type") == "array":
            lines += [f"The body is a {describe_type(schema, schemas)}.", ""]
            schema = _resolve(schema["items"], schemas)
        else:
            lines += ["The body:", ""]
        lines += _with_notes(schema, make_table(schema, schemas))
    lines += ["| answer | | body |", "|---|---|---|"]
    for status, response in sorted(operation["responses"].items()):
        bodies = [
            _describe_body(kind, content.get("schema", {}), schemas)
            for kind, content in response.get("content", {}).items()
        ]
        told = response["description"].replace("Successful Response", "").replace("|", "\\|")
        lines.append(f"| {status} | {told} | {', '.join(bodies)} |")
    return [*lines, ""]


def _describe_body(kind: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    if kind == "application/problem+json":
        return "problem"
    return describe_type(schema, schemas) if schema else f"`{kind}`"


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return schemas[name] if name else schema


def _first_paragraph(schema: dict[str, Any]) -> str:
    return re.split(r"\n\s*\n", schema.get("description") or schema.get("summary") or "")[0]


def _with_notes(schema: dict[str, Any], table: list[str]) -> list[str]:
    """Add what the docstring says of a field to the line of the field, if the schema does not say it."""
    attributes = (schema.get("description") or "").partition("Attributes:\n")[2]
    notes = {
        name: " ".join(text.split()).rstrip(".")
        for name, text in re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\S|\Z)", attributes, re.MULTILINE | re.DOTALL)
    }
    return [
        f"{line[: -len(' |  |')]} | {notes[name].replace('|', chr(92) + '|')} |"
        if line.endswith(" |  |") and (name := line.split("`")[1]) in notes
        else line
        for line in table
    ]
