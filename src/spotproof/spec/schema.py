"""The JSON schema of job.yaml, made from the models, for editors. Pure."""

import json
from typing import Any

from spotproof.spec.job import JobSpec

__all__ = ["build_schema", "format_schema"]

_REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
"""``${VARIABLE}`` may stand for any value."""
_TEXT_OR_NUMBER = {"type": ["string", "number"]}


def format_schema() -> str:
    """Return the schema as a file."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def build_schema() -> dict[str, Any]:
    """Return what a job.yaml may say, as JSON schema (draft 2020-12).

    An editor can tell more from it than a mistake in spelling, but not all: rules that bind two fields, and those that
    need the files, are left to `spotproof launch --dry-run`.
    """
    schema = JobSpec.model_json_schema(mode="validation")
    definitions = {name: _simplified(part) for name, part in schema.pop("$defs", {}).items()}
    fields = {name: _simplified(field) for name, field in schema["properties"].items()}
    for name in ("environment", "tags"):
        fields[name]["additionalProperties"] = _TEXT_OR_NUMBER
    for field in fields.values():
        if field.get("type") in ("object", "array"):  # with all of its lines commented out
            field["type"] = [field["type"], "null"]
    required = [name for name in schema["required"] if name != "instance_type"]
    of_a_profile = {name: {"anyOf": [field, {"type": "null"}]} for name, field in fields.items()}
    profiles = {
        "description": "Values that replace those above when one is chosen by --profile; null takes a field away.",
        "type": "object",
        "additionalProperties": {"type": "object", "properties": of_a_profile, "additionalProperties": False},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A training job of Spotproof: job.yaml",
        "type": "object",
        "properties": {"name": fields.pop("name"), **fields, "profiles": profiles},
        "additionalProperties": False,
        # A profile may bring what is required.
        "if": {"not": {"required": ["profiles"]}},
        "then": {
            "required": ["name", *(name for name in required if name != "name")],
            "oneOf": [{"required": ["instance_type"]}, {"required": ["instance_types"]}],
        },
        "$defs": definitions,
    }


def _simplified(schema: Any, *, is_value: bool = True) -> Any:
    """Return *schema* without pydantic's titles, descriptions in one line, and variables allowed for each value."""
    if not isinstance(schema, dict):
        return schema
    simple = {key: value for key, value in schema.items() if key not in ("title", "default", "format")}
    if isinstance(simple.get("description"), str):
        simple["description"] = " ".join(simple["description"].split())
    if "default" in schema and schema["default"] not in (None, [], {}):
        simple["default"] = schema["default"]
    for key in ("properties", "$defs"):
        if key in simple:
            simple[key] = {name: _simplified(part) for name, part in simple[key].items()}
    for key in ("items", "additionalProperties"):
        if key in simple:
            simple[key] = _simplified(simple[key])
    for key in ("anyOf", "oneOf"):
        if key in simple:
            simple[key] = [_simplified(part, is_value=False) for part in simple[key]]
    return _or_reference(simple) if is_value else simple


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    is_free_text = schema.get("type") == "string" and not schema.keys() & {"enum", "pattern", "maxLength", "minLength"}
    if (
        is_free_text
        or schema.get("type") in ("object", "array")
        or "$ref" in schema
        or not schema.keys() - {"description"}
    ):
        return schema
    told: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in told}
    members = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    if any(member.get("type") == "string" and len(member) == 1 for member in members):
        return schema
    return {**told, "anyOf": [*members, _REFERENCE]}
