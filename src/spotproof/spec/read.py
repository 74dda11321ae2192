"""From job.yaml, its profiles and the command line to JobSpec, with errors that name file, line, column and remedy."""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spotproof.errors import SpecError
from spotproof.spec.explain import explain, explain_unknown
from spotproof.spec.interpolate import UnsetVariable, has_variables, interpolate
from spotproof.spec.job import JobSpec
from spotproof.spec.overrides import apply_override, merge_fields, parse_input, parse_override
from spotproof.spec.part import GivenText
from spotproof.spec.yaml_file import FieldPath, Mark, YamlFile, parse_yaml, read_text

__all__ = ["parse_job_spec", "profile_names", "read_job_spec"]

Problem = Callable[[FieldPath, str], None]


def read_job_spec(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    inputs: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    needs_inputs: bool = True,
) -> JobSpec:
    """Return the job that the YAML file at *path* describes; its local paths are relative to the file's folder.

    Args:
        path: The file.
        profile: One of the file's profiles, which replaces some of its fields.
        overrides: ``NAME=VALUE``, stronger than file and profile; local paths are relative to the working directory.
        inputs: ``CHANNEL=PLACE``, the same for a channel.
        environment: What ``${VARIABLE}`` stands for; by default this process's variables.
        needs_inputs: Whether local inputs must exist.

    Raises:
        SpecError: The file is missing, is no YAML mapping, or a field is wrong; names file, line, field, value, remedy.
    """
    file = Path(path)
    source = str(file)
    found = parse_yaml(read_text(file), source)
    fields, marks, value_marks = _choose_profile(found, profile, source)
    known = fields.get("hyperparameters")
    given = [parse_override(text, known if isinstance(known, dict) else ()) for text in overrides]
    given += [parse_input(text) for text in inputs]
    for override in given:
        fields = apply_override(fields, override)
        marks[override.path] = Mark(option=override.option)
    variables = os.environ if environment is None else environment
    fields = {
        name: _filled(value, (name,), variables, lambda path: f"{source}, {_mark_of(path, value_marks)}")
        for name, value in fields.items()
    }
    return parse_job_spec(fields, source=source, folder=file.resolve().parent, marks=marks, needs_inputs=needs_inputs)


def profile_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the profiles of the YAML file at *path*.

    Raises:
        SpecError: The file is missing or is no YAML mapping.
    """
    profiles = parse_yaml(read_text(Path(path)), str(path)).fields.get("profiles")
    return [str(name) for name in profiles] if isinstance(profiles, dict) else []


def _choose_profile(
    found: YamlFile, profile: str | None, source: str
) -> tuple[dict[str, Any], dict[FieldPath, Mark], dict[FieldPath, Mark]]:
    """Return the fields with those of the profile in their place, and where each of them stands."""
    fields, marks, value_marks = dict(found.fields), dict(found.marks), dict(found.value_marks)
    profiles = fields.pop("profiles", {})
    where = f"{source}, {marks.get(('profiles',), Mark())}"
    if not isinstance(profiles, dict) or not all(isinstance(value, dict) for value in profiles.values()):
        raise SpecError(f"{where}, profiles: it is no mapping of profiles.", do="Write 'NAME: {field: value}' lines.")
    for name, changes in profiles.items():
        for field in changes:
            if field not in JobSpec.model_fields:
                path = ("profiles", str(name), str(field))
                raise SpecError(
                    f"{source}, {_mark_of(path, marks)}, {'.'.join(path)}: {explain_unknown((str(field),))}"
                )
    if profile is None:
        return fields, marks, value_marks
    if profile not in profiles:
        names = ", ".join(map(str, profiles))
        raise SpecError(
            f"{source} has no profile {profile!r}.",
            why=f"It has: {names}." if names else "It has none.",
            do="Correct --profile, or write it: profiles: {" + profile + ": {max_run: 600}}.",
        )
    for known in (marks, value_marks):
        inside = {path: mark for path, mark in known.items() if path[:2] == ("profiles", profile)}
        known.update({path[2:]: mark for path, mark in inside.items() if path[2:]})
    return merge_fields(fields, profiles[profile]), marks, value_marks


def _filled(value: Any, path: FieldPath, variables: Mapping[str, str], where: Callable[[FieldPath], str]) -> Any:
    """Return *value* with variables in place of their names; what the command line gave is left alone."""
    if isinstance(value, dict):
        return {key: _filled(item, (*path, str(key)), variables, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*path, str(index)), variables, where) for index, item in enumerate(value)]
    if not isinstance(value, str) or isinstance(value, GivenText) or "${" not in value:
        return value
    try:
        text = interpolate(value, variables)
    except UnsetVariable as error:
        raise SpecError(f"{where(path)}, {'.'.join(path)}: {error.what}", why=error.why, do=error.do) from error
    return GivenText(text) if has_variables(value) else text


def parse_job_spec(
    fields: Mapping[str, Any],
    *,
    source: str = "The job",
    folder: Path | None = None,
    marks: Mapping[FieldPath, Mark] | None = None,
    needs_inputs: bool = True,
) -> JobSpec:
    """Return the job that *fields* describe, its relative local paths taken from *folder*.

    Args:
        fields: As in job.yaml.
        source: Where they come from, for messages.
        folder: What local paths are relative to; they must exist. None leaves paths as they are, unchecked.
        marks: Where each field stands in *source*, for messages.
        needs_inputs: Whether local inputs must exist.

    Raises:
        SpecError: Names every wrong field with its line, its value and the remedy.
    """
    marks = marks or {}
    # A field whose lines are all commented out is one that was left out.
    prepared = {name: value for name, value in fields.items() if value is not None}
    problems: list[tuple[FieldPath, str]] = []

    def problem(path: FieldPath, text: str) -> None:
        problems.append((path, text))

    _check_values(prepared, problem)
    if folder is not None:
        prepared = _resolve_paths(prepared, folder, problem, needs_inputs)
    try:
        spec = JobSpec.model_validate(prepared)
    except ValidationError as error:
        unknown = [name for name in fields if name not in JobSpec.model_fields]
        reported = {path[0] for path, _ in problems}
        for detail in error.errors():
            path, text = explain(detail)
            if detail["type"] == "missing" and difflib.get_close_matches(path[0], unknown, n=1, cutoff=0.55):
                continue  # the misspelt field is reported, with this name
            if path and path[0] not in reported and (path, text) not in problems:
                problem(path, text)
    if problems:
        raise SpecError(_told(problems, source, marks))
    return spec


def _told(problems: list[tuple[FieldPath, str]], source: str, marks: Mapping[FieldPath, Mark]) -> str:
    """Return one message for all *problems*, in the order of the file."""
    lines = []
    for path, text in problems:
        mark = _mark_of(path, marks)
        where = f"{mark}, " if mark.line else f"{mark}: " if mark.option else ""
        name = ".".join(path)
        lines.append(
            (mark.line, f"{where}{name}: {text}" if not mark.option.endswith(f" {name}") else f"{where}{text}")
        )
    texts = [text for _, text in sorted(lines, key=lambda item: item[0])]
    return f"{source}, {texts[0]}" if len(texts) == 1 else f"{source}:\n" + "\n".join(f"  {text}" for text in texts)


def _mark_of(path: FieldPath, marks: Mapping[FieldPath, Mark]) -> Mark:
    """Return where *path*, or what it is in, stands."""
    for length in range(len(path), 0, -1):
        if path[:length] in marks:
            return marks[path[:length]]
    return Mark()


def _check_values(fields: Mapping[str, Any], problem: Problem) -> None:
    """Find what YAML made of values that were meant otherwise."""
    for field in ("environment", "tags"):
        for key, value in _items(fields.get(field)):
            if isinstance(value, bool) or value is None:
                problem(
                    (field, key),
                    f"{value!r} is no text. YAML takes yes, no, on, off, true, false for such. Put it in quotes.",
                )
    for key, value in _items(fields.get("hyperparameters")):
        if value is None:
            problem(("hyperparameters", key), "it has no value. Give one, or remove the line.")
        elif isinstance(value, dict):
            inner = next(iter(value), "name")
            problem(
                ("hyperparameters", key),
                f"it is a mapping, not a text, a number, true, false or a list. Write {key}.{inner}: …",
            )
        elif not isinstance(value, (bool, int, float, str, list)):
            problem(("hyperparameters", key), f"{value} is a {type(value).__name__}. Put it in quotes.")


def _items(mapping: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(mapping, dict):
        for key, value in mapping.items():
            yield str(key), value


def _resolve_paths(fields: dict[str, Any], folder: Path, problem: Problem, needs_inputs: bool) -> dict[str, Any]:
    inputs = fields.get("inputs")
    if isinstance(inputs, dict):
        resolved: dict[str, Any] = {}
        for name, channel in inputs.items():
            place = channel.get("s3_uri") if isinstance(channel, dict) else channel
            if isinstance(place, str) and place and "://" not in place and not place.startswith("{"):
                path = (folder / os.path.expanduser(place)).resolve()
                if needs_inputs and not path.exists():
                    problem(("inputs", str(name)), f"{place!r} does not exist (looked for {path}). Correct the path.")
                channel = {**channel, "s3_uri": str(path)} if isinstance(channel, dict) else str(path)
            resolved[name] = channel
        fields = {**fields, "inputs": resolved}
    source_dir = fields.get("source_dir")
    if isinstance(source_dir, str):
        path = (folder / os.path.expanduser(source_dir)).resolve()
        if not path.is_dir():
            problem(("source_dir",), f"{str(source_dir)!r} is no folder (looked for {path}). Correct the path.")
        fields = {**fields, "source_dir": path}
    return fields
