"""The JSON schema says what job.yaml takes: an editor that goes by it is right."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import spotproof
from spotproof.spec import JobSpec, build_schema, format_schema

ROOT = Path(spotproof.__file__).parents[2]
GOOD: dict[str, Any] = {
    "name": "a",
    "image_uri": "image",
    "role": "arn:aws:iam::123456789012:role/R",
    "instance_type": "ml.m5.large",
    "output_path": "s3://bucket/out",
}


def problems(job: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(build_schema())
    return [error.message for error in validator.iter_errors(job)]


def test_schema_is_one() -> None:
    """By the metaschema of its own draft."""
    jsonschema.Draft202012Validator.check_schema(build_schema())


@pytest.mark.parametrize("name", ["job.yaml", "digits.yaml"])
def test_examples_are_valid_and_name_the_schema(name: str) -> None:
    """Each example is valid by the schema that its first line names, and that is the one the program prints."""
    path = ROOT / "examples/cifar10" / name
    first, _, _ = path.read_text().partition("\n")
    schema = (path.parent / first.partition("$schema=")[2]).resolve()

    assert problems(yaml.safe_load(path.read_text())) == []
    assert schema.read_text() == format_schema(), "run: spotproof schema -o docs/job.schema.json"


@pytest.mark.parametrize(
    "fields",
    [
        {"max_run": "${MAX_RUN:-60}", "use_spot_instances": "${SPOT}", "input_mode": "${MODE}"},
        {"inputs": {"a": "data", "b": {"s3_uri": "s3://bucket/b", "distribution": "ShardedByS3Key"}}},
        {"entrypoint": "train.py --x"},
        {"entrypoint": ["train.py"], "deadline": "36h", "max_cost_usd": 3, "environment": {"A": 2}},
        {"hyperparameters": {"a": 1, "b": True, "c": "x", "d": [1, "y"], "e": 0.5}},
        {"profiles": {"debug": {"max_run": 60, "max_wait": None}}},
        {"max_wait": None, "checkpoint_s3_uri": None},
        {"metric_definitions": [{"Name": "a", "Regex": "(a)"}], "tags": {"team": "x"}},
    ],
)
def test_what_may_be_written_is_valid(fields: dict[str, Any]) -> None:
    """Variables, short forms and profiles are no mistakes to an editor."""
    assert problems({**GOOD, **fields}) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"max_runn": 60},
        {"max_run": "60"},
        {"max_run": 0},
        {"role": "MyRole"},
        {"name": "a_b"},
        {"output_path": "bucket/out"},
        {"instance_type": "g5.xlarge"},
        {"instance_types": ["ml.m5.large"]},
        {"use_spot_instances": "yes"},
        {"input_mode": "Fast"},
        {"inputs": {"a": {"s3_uri": "s3://bucket/a", "distributoin": "x"}}},
        {"hyperparameters": {"a": {"b": 1}}},
        {"metric_definitions": [{"Name": "a"}]},
        {"profiles": {"debug": {"max_runn": 60}}},
        {"environment": {"A": True}},
    ],
)
def test_what_is_wrong_is_marked(fields: dict[str, Any]) -> None:
    """What the reader refuses by form, the editor marks."""
    assert problems({**GOOD, **fields})


def test_required_fields_may_come_from_a_profile() -> None:
    """Without profiles all must be there; with them a profile may bring some."""
    without = {name: value for name, value in GOOD.items() if name != "role"}

    assert problems(without)
    assert problems({**without, "profiles": {"mine": {"role": GOOD["role"]}}}) == []


def test_each_field_is_explained() -> None:
    """An editor shows what each field means, also those of channels."""
    schema = json.loads(format_schema())

    assert set(schema["properties"]) == {*JobSpec.model_fields, "profiles"}
    parts = [schema, *schema["$defs"].values()]
    assert [name for part in parts for name, field in part["properties"].items() if not field.get("description")] == []
