"""JSON Schemas as tables for people."""

from __future__ import annotations

import html
from typing import Any


def make_table(
    schema: dict[str, Any], definitions: dict[str, Any], *, with_required: bool = True
) -> list[str]:
    """Return a Markdown table with a line for each property of an object."""
    lines = ["| field | type | |", "|---|---|---|"]
    required = schema.get("required", ()) if with_required else ()
    for name, field in schema.get("properties", {}).items():
        lines.append(
            f"| `{name}` | {describe_type(field, definitions)} | {_describe(name, field, required)} |"
        )
    return [*lines, ""]


def describe_type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Say in words which values a schema allows."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name.removesuffix('Spec')}](#{name.lower()})" if name in definitions else name
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(describe_type(one, definitions) for one in schema[several])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {describe_type(schema.get('items', {}), definitions)}"
    if kind == "object":
        return _describe_object(schema, definitions)
    words = [{"string": "text", "boolean": "true or false", "null": "null"}.get(kind, kind)]
    words += [f"({text})" for text in [schema.get("format", "")] if text]
    words += [text for text in [_describe_range(schema)] if text]
    return " ".join(words)


def _describe_object(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    values = [*schema.get("patternProperties", {}).values()]
    if isinstance(schema.get("additionalProperties"), dict):
        values.append(schema["additionalProperties"])
    if not values:
        return "object"
    return f"names, and for each {' or '.join(describe_type(value, definitions) for value in values)}"


def _describe_range(schema: dict[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f"above {_number(schema['exclusiveMinimum'])}, at most {_number(most)}"
    if least is not None and most is not None:
        return f"{_number(least)} to {_number(most)}"
    if least is not None:
        return f"{_number(least)} or more"
    return f"up to {schema['maxLength']} characters" if "maxLength" in schema else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _describe(name: str, field: dict[str, Any], required: Any) -> str:  # noqa: ANN401 - any container
    told = [_find_description(field)]
    if name in required:
        told.append("**required**")
    elif field.get("default") not in (None, {}, []):
        default = field["default"]
        told.append(
            f"`{str(default).lower() if isinstance(default, bool) else default}` unless given".replace(
                "'", ""
            )
        )
    if examples := _find(field, "examples"):
        told.append("such as " + ", ".join(f"`{example}`" for example in examples))
    return "; ".join(filter(None, told)).replace("|", "\\|")


def _find_description(field: dict[str, Any]) -> str:
    return html.escape(_find(field, "description") or "", quote=False)


def _find(schema: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - what the schema has
    if name in schema:
        return schema[name]
    for several in ("anyOf", "oneOf"):
        for one in schema.get(several, ()):
            if (found := _find(one, name)) is not None:
                return found
    return None
