"""pydantic's findings in this project's words. Pure."""

import difflib
from typing import Any

from spotproof.errors import SpecError
from spotproof.spec.data import Channel, TensorBoardOutput
from spotproof.spec.job import JobSpec
from spotproof.spec.not_here import NOT_HERE
from spotproof.spec.part import FieldRuleError, SpecPart
from spotproof.spec.program import MetricDefinition
from spotproof.spec.yaml_file import FieldPath

__all__ = ["explain", "explain_unknown"]

_WANTED = {
    "string_type": "a text; put it in quotes",
    "int_type": "a whole number without quotes",
    "int_from_float": "a whole number",
    "float_type": "a number without quotes",
    "finite_number": "a number",
    "bool_type": "true or false, without quotes",
    "dict_type": "a mapping, 'key: value' lines",
    "tuple_type": "a list",
    "is_instance_of": "a path",
}
_SHOWN_CHARS = 80


def explain(detail: Any) -> tuple[FieldPath, str]:
    """Return field and text of one of pydantic's findings."""
    location = tuple(str(part) for part in detail["loc"])
    kind, value = detail["type"], detail["input"]
    cause = detail.get("ctx", {}).get("error")
    if location[:1] == ("hyperparameters",):  # a union: one finding for each of its types
        location = location[:2]
    if isinstance(cause, FieldRuleError):
        return (*location, *cause.field.split(".", 1)), str(cause)
    if isinstance(cause, SpecError):
        return location, str(cause)
    if kind == "missing":
        return location, "it is missing. Add it."
    if kind == "extra_forbidden":
        return location, explain_unknown(location)
    if kind == "literal_error":
        return location, f"{_shown(value)} is none of {detail['ctx']['expected'].replace(' or ', ', ')}."
    wanted = _WANTED.get(kind)
    if kind == "model_type":
        model = _model_of(location)
        wanted = f"a mapping with {', '.join(name for name, f in model.model_fields.items() if f.is_required())}"
        if model is Channel:
            wanted = "an s3:// URI, a path, or a mapping of a channel's fields"
    if location[:1] == ("environment",):
        return location, f"it is not {wanted or 'a text'}."  # its value may be a secret
    return location, f"{_shown(value)} is not {wanted}." if wanted else f"{_shown(value)}: {detail['msg']}."


def explain_unknown(location: FieldPath) -> str:
    """Return what is said of a field that there is not."""
    name = location[-1]
    known = list(_model_of(location[:-1]).model_fields)
    if len(location) == 1 and name in NOT_HERE:
        return f"there is no such field. {NOT_HERE[name]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
    remedy = f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
    return f"there is no such field. {remedy}"


def _model_of(location: FieldPath) -> type[SpecPart]:
    inner: dict[str, type[SpecPart]] = {
        "metric_definitions": MetricDefinition,
        "inputs": Channel,
        "tensorboard_output_config": TensorBoardOutput,
    }
    return inner.get(location[0] if location else "", JobSpec)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
