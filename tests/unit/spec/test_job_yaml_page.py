"""docs/job-yaml.md lists every field with what the models say of it, and only those."""

import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic_core import PydanticUndefined

import spotproof
from spotproof.spec import Channel, Deadline, JobSpec, MetricDefinition, TensorBoardOutput
from spotproof.spec.access import Access
from spotproof.spec.data import Data
from spotproof.spec.machines import Limits, Machines
from spotproof.spec.not_here import NOT_HERE
from spotproof.spec.program import Program

PAGE = Path(spotproof.__file__).parents[2] / "docs/job-yaml.md"
WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    Deadline: "duration or time",
    TensorBoardOutput: "mapping",
}


def type_of(annotation: Any) -> str:
    """A field's type in the page's words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_of(member) for member in arguments if member is not type(None))
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if origin is tuple:
        return "list"
    if origin is dict:
        return "mapping"
    return WORDS[annotation]


def rows_of(model: type[Any]) -> list[str]:
    """The rows of one part's table."""
    rows = []
    for name, field in model.model_fields.items():
        default = field.default
        if default is PydanticUndefined or default in (None, ()):
            shown = "**needed**" if field.is_required() else ""
        else:
            shown = f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"
        text = " ".join((field.description or "").split()).replace("``", "`").replace("|", r"\|")
        rows.append(f"| `{name}` | {type_of(field.annotation)} | {shown} | {text} |")
    return rows


@pytest.mark.parametrize(
    "model", [Program, Machines, Limits, Data, Access, Channel, TensorBoardOutput, MetricDefinition]
)
def test_the_table_of_a_part_is_its_model(model: type[Any]) -> None:
    """Name, type, default and meaning of each field, in the model's order."""
    expected = "\n".join(rows_of(model))

    assert expected in PAGE.read_text(), f"docs/job-yaml.md, {model.__name__}:\n{expected}"


def test_there_is_no_other_row() -> None:
    """A field that is gone is gone from the page as well."""
    models = (JobSpec, Channel, TensorBoardOutput, MetricDefinition)
    known = {name for model in models for name in model.model_fields} | NOT_HERE.keys()
    named = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]

    assert [name for name in named if name not in known] == []
    assert set(JobSpec.model_fields) <= set(named)


def test_words_that_are_not_here_are_listed() -> None:
    """Each word of the Estimator that is no field, with what stands in its place."""
    text = PAGE.read_text()

    assert [name for name, remedy in NOT_HERE.items() if f"| `{name}` | {remedy} |" not in text] == []


# The arguments of EstimatorBase, Estimator, Framework and PyTorch.
# Source: aws/sagemaker-python-sdk v2.257, estimator.py and pytorch/estimator.py; with the names that v1 had.
ESTIMATOR_WORDS = """
role instance_count instance_type keep_alive_period_in_seconds volume_size volume_kms_key max_run input_mode output_path
output_kms_key base_job_name sagemaker_session tags subnets security_group_ids model_uri model_channel_name
metric_definitions encrypt_inter_container_traffic use_spot_instances max_wait checkpoint_s3_uri checkpoint_local_path
rules debugger_hook_config tensorboard_output_config enable_sagemaker_metrics enable_network_isolation profiler_config
disable_profiler environment max_retry_attempts source_dir git_config container_log_level code_location entry_point
dependencies instance_groups training_repository_access_mode training_repository_credentials_provider_arn
enable_infra_check container_entry_point container_arguments disable_output_compression enable_remote_debug
enable_session_tag_chaining training_plan instance_placement_config image_uri hyperparameters framework_version
py_version distribution compiler_config training_recipe recipe_overrides train_instance_count train_instance_type
train_volume_size train_max_run train_use_spot_instances train_max_wait
"""


def test_no_word_of_the_estimator_is_unknown() -> None:
    """Each is a field, or is told what stands in its place: nobody is sent to guess."""
    assert [word for word in ESTIMATOR_WORDS.split() if word not in {*JobSpec.model_fields, *NOT_HERE}] == []
