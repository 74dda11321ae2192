"""From YAML to JobSpec, with errors that name file, line, field, value and remedy."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spotproof.errors import SpecError
from spotproof.spec.job import FieldRuleError, JobSpec, MetricDefinition

__all__ = ["parse_job_spec", "read_job_spec"]


def parse_job_spec(
    fields: Mapping[str, Any],
    *,
    source: str = "The job",
    folder: Path | None = None,
    lines: Mapping[str, int] | None = None,
    needs_inputs: bool = True,
) -> JobSpec:
    """Return the job that *fields* describe, its relative local paths taken from *folder*.

    Args:
        fields: As in job.yaml.
        source: Where they come from, for messages.
        folder: What local paths are relative to; they must exist. None leaves paths as they are, unchecked.
        lines: Line of each field in *source*, for messages; keys are dotted (``inputs.training``).
        needs_inputs: Whether local inputs must exist.

    Raises:
        SpecError: Names every wrong field with its line, its value and the remedy.
    """
    lines = lines or {}
    prepared = dict(fields)
    problems: list[tuple[int, str]] = []

    def problem(field: str, text: str) -> None:
        line = lines.get(field) or lines.get(field.partition(".")[0], 0)
        where = f"line {line}, {field}" if line else field
        problems.append((line, f"{where}: {text}"))

    _prepare_environment(prepared, problem)
    _prepare_hyperparameters(prepared, problem)
    if folder is not None:
        _resolve_paths(prepared, folder, problem, needs_inputs)
    try:
        spec = JobSpec.model_validate(prepared)
    except ValidationError as error:
        unknown = [name for name in fields if name not in JobSpec.model_fields]
        reported = {text.partition(":")[0].rpartition(" ")[2] for _, text in problems}
        for detail in error.errors():
            field, text = _explain(detail)
            if detail["type"] == "missing" and difflib.get_close_matches(field, unknown, n=1, cutoff=0.55):
                continue  # the misspelt field is reported, with this name
            if field.partition(".")[0] not in {name.partition(".")[0] for name in reported}:
                problem(field, text)
    if problems:
        texts = [text for _, text in sorted(problems, key=lambda item: item[0])]
        raise SpecError(
            f"{source}, {texts[0]}" if len(texts) == 1 else f"{source}:\n" + "\n".join(f"  {t}" for t in texts)
        )
    return spec


def _prepare_environment(fields: dict[str, Any], problem: Any) -> None:
    values = fields.get("environment")
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, bool) or value is None:
                problem(
                    f"environment.{key}",
                    f"{value!r} is no text. YAML takes yes, no, on, off, true, false for such. Put it in quotes.",
                )
        fields["environment"] = {
            str(key): str(value) if isinstance(value, (int, float)) else value for key, value in values.items()
        }


def _prepare_hyperparameters(fields: dict[str, Any], problem: Any) -> None:
    values = fields.get("hyperparameters")
    if isinstance(values, dict):
        for key, value in values.items():
            if value is None:
                problem(f"hyperparameters.{key}", "it has no value. Give one, or remove the line.")
            elif isinstance(value, dict):
                inner = next(iter(value), "name")
                problem(
                    f"hyperparameters.{key}",
                    f"it is a mapping, not a text, a number, true, false or a list. Write {key}.{inner}: …",
                )
            elif not isinstance(value, (bool, int, float, str, list)):
                problem(f"hyperparameters.{key}", f"{value} is a {type(value).__name__}. Put it in quotes.")
        fields["hyperparameters"] = {str(key): value for key, value in values.items()}


def _resolve_paths(fields: dict[str, Any], folder: Path, problem: Any, needs_inputs: bool) -> None:
    inputs = fields.get("inputs")
    if isinstance(inputs, dict):
        resolved = {}
        for channel, place in inputs.items():
            if isinstance(place, str) and place and "://" not in place:
                path = (folder / os.path.expanduser(place)).resolve()
                if needs_inputs and not path.exists():
                    problem(f"inputs.{channel}", f"{place!r} does not exist (looked for {path}). Correct the path.")
                place = str(path)
            resolved[channel] = place
        fields["inputs"] = resolved
    source_dir = fields.get("source_dir")
    if isinstance(source_dir, str):
        path = (folder / os.path.expanduser(source_dir)).resolve()
        if not path.is_dir():
            problem("source_dir", f"{source_dir!r} is no folder (looked for {path}). Correct the path.")
        fields["source_dir"] = path


def _explain(detail: Any) -> tuple[str, str]:
    """Return field and text of one of pydantic's findings, in this project's words."""
    location = [str(part) for part in detail["loc"]]
    kind, value = detail["type"], detail["input"]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FieldRuleError):
        return cause.field, str(cause)
    if location and location[0] == "hyperparameters":  # a union: one finding for each of its types
        location = location[:2]
    field = ".".join(location)
    if isinstance(cause, SpecError):
        return field, str(cause)
    if kind == "missing":
        return field, "it is missing. Add it."
    if kind == "extra_forbidden":
        known = list(JobSpec.model_fields) if len(location) == 1 else list(MetricDefinition.model_fields)
        close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.55)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
        return field, f"there is no such field. {remedy}"
    wanted = {
        "string_type": "a text; put it in quotes",
        "int_type": "a whole number without quotes",
        "int_from_float": "a whole number",
        "bool_type": "true or false, without quotes",
        "dict_type": "a mapping, 'key: value' lines",
        "tuple_type": "a list",
        "model_type": "a mapping with Name and Regex",
        "is_instance_of": "a path",
    }.get(kind)
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:79] + "…"
    return field, f"{shown} is not {wanted}." if wanted else f"{shown}: {detail['msg']}."


def read_job_spec(
    path: str | os.PathLike[str],
    *,
    inputs: Mapping[str, str] | None = None,
    hyperparameters: Mapping[str, str] | None = None,
    needs_inputs: bool = True,
) -> JobSpec:
    """Return the job that the YAML file at *path* describes; its local paths are relative to the file's folder.

    Args:
        path: The file.
        inputs: Channels that replace the file's; local paths are relative to the working directory.
        hyperparameters: Values that replace the file's.
        needs_inputs: Whether local inputs must exist.

    Raises:
        SpecError: The file is missing, is no YAML mapping, or a field is wrong; names file, line, field, value, remedy.
    """
    import yaml

    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(f"There is no file {file}.", do="Give the path of a job.yaml.") from error
    except IsADirectoryError as error:
        raise SpecError(f"{file} is a folder.", do=f"Give the file in it, for example {file / 'job.yaml'}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{file} is no text file (UTF-8).", do="Give the path of a job.yaml.") from error
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}.", do="Correct its permissions.") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise SpecError(
            f"{file}{where}: this is no YAML: {reason}.", do="Correct the line or the one before it."
        ) from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(fields, dict):
        found = "empty" if fields is None else f"a {type(fields).__name__}, not a mapping"
        raise SpecError(f"{file} is {found}.", do="Write 'field: value' lines; the fields are the Estimator's words.")
    lines: dict[str, int] = {}
    _find_lines(root, "", lines, file)
    not_text = [key for key in fields if not isinstance(key, str)]
    if not_text:
        raise SpecError(f"{file}: {not_text[0]!r} is no field.", do="Remove it.")
    for field, given in (("hyperparameters", dict(hyperparameters or {})), ("inputs", dict(inputs or {}))):
        if field == "inputs":
            given = {key: value if "://" in value else os.path.abspath(value) for key, value in given.items()}
        if given and isinstance(fields.get(field) or {}, dict):
            fields[field] = {**(fields.get(field) or {}), **given}
    return parse_job_spec(
        fields, source=str(file), folder=file.resolve().parent, lines=lines, needs_inputs=needs_inputs
    )


def _find_lines(node: Any, prefix: str, lines: dict[str, int], file: Path) -> None:
    import yaml

    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            raise SpecError(
                f"{file}, line {line}, {name}: it is given twice, first in line {lines[name]}.",
                why="YAML would silently take the last.",
                do="Remove one.",
            )
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _find_lines(value, f"{name}.", lines, file)
