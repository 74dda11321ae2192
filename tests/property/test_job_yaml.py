"""job.yaml: whatever it may say becomes a request that SageMaker takes, and text from outside stays what it is."""

import copy
import os
import string
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from request_rules import find_violations, instance_types
from spotproof.errors import SpecError
from spotproof.launch.request import build_request
from spotproof.spec import JobSpec, parse_job_spec, read_job_spec
from spotproof.spec.interpolate import UnsetVariable, has_variables, interpolate
from spotproof.spec.overrides import merge_fields, parse_override

LETTERS = string.ascii_letters + string.digits
names = st.from_regex(r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,20}", fullmatch=True)
buckets = st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)
texts = st.text(max_size=40)
awkward = st.sampled_from(["", "a\nb", "\n", " ", "\t", "é", "x" * 300, "aws:x", "..", "${"])
lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | awkward
keys = st.text(min_size=1, max_size=40)
ids = st.text(LETTERS + "-", min_size=1, max_size=32)
seconds = st.integers(-10, 3 * 10**6)
types = st.sampled_from(instance_types())
places = st.builds("s3://{}/{}".format, buckets, lines)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


s3_channels = st.fixed_dictionaries(
    {"s3_uri": places},
    optional={
        "s3_data_type": st.sampled_from(["S3Prefix", "ManifestFile", "AugmentedManifestFile"]),
        "distribution": st.sampled_from(["FullyReplicated", "ShardedByS3Key"]),
        "attribute_names": st.lists(lines, max_size=18),
        "shuffle_seed": st.integers(),
        "content_type": lines,
        "compression": st.sampled_from(["None", "Gzip"]),
        "record_wrapping": st.sampled_from(["None", "RecordIO"]),
        "input_mode": st.sampled_from(["File", "FastFile", "Pipe"]),
    },
)
file_systems = st.fixed_dictionaries(
    {
        "file_system_id": st.from_regex(r"fs-[0-9a-f]{6,20}", fullmatch=True),
        "file_system_type": st.sampled_from(["EFS", "FSxLustre"]),
        "directory_path": st.builds("/{}".format, lines),
    },
    optional={"file_system_access_mode": st.sampled_from(["ro", "rw"]), "content_type": lines},
)
values = st.booleans() | st.integers() | st.floats() | lines | st.lists(st.integers() | lines, max_size=5)
jobs = st.fixed_dictionaries(
    {
        "name": names | lines,
        "image_uri": st.text(LETTERS + "/:.-@", min_size=1, max_size=60) | lines,
        "role": st.builds(
            "arn:aws:iam::123456789012:role/{}".format, st.text(LETTERS + "+=,.@-_/", max_size=30) | lines
        ),
        "output_path": places,
    },
    optional={
        "instance_type": types,
        "instance_types": st.lists(types, max_size=4),
        "instance_count": st.integers(-1, 2**33),
        "use_spot_instances": st.booleans(),
        "volume_size": st.integers(-1, 20000),
        "volume_kms_key": maybe(ids | lines),
        "keep_alive_period_in_seconds": maybe(st.integers(-1, 30000)),
        "max_run": seconds,
        "max_wait": maybe(seconds),
        "max_retry_attempts": maybe(st.integers(-1, 40)),
        "deadline": maybe(st.sampled_from(["36h", "2027-01-31T18:00:00Z", "soon"])),
        "max_cost_usd": maybe(st.floats()),
        "inputs": st.dictionaries(
            st.text(LETTERS + "._-", max_size=10), places | s3_channels | file_systems, max_size=4
        ),
        "input_mode": st.sampled_from(["File", "FastFile", "Pipe"]),
        "checkpoint_s3_uri": maybe(places),
        "checkpoint_local_path": maybe(st.builds("/{}".format, lines)),
        "output_kms_key": maybe(ids),
        "disable_output_compression": st.booleans(),
        "tensorboard_output_config": maybe(
            st.fixed_dictionaries({"s3_output_path": places}, optional={"container_local_output_path": lines})
        ),
        "container_entry_point": maybe(st.lists(lines, max_size=4)),
        "container_arguments": maybe(st.lists(lines, max_size=4)),
        "hyperparameters": st.dictionaries(keys, values, max_size=5),
        "environment": st.dictionaries(st.text(LETTERS + "_", max_size=10), lines, max_size=5),
        "metric_definitions": st.lists(
            st.fixed_dictionaries(
                {"Name": lines, "Regex": st.sampled_from(["a=(.)", "(", "a", "x=([0-9.]+)", "(a\n)"])}
            ),
            max_size=3,
        ),
        "enable_sagemaker_metrics": maybe(st.booleans()),
        "subnets": st.lists(ids, max_size=3) | st.just(["subnet-1"] * 17),
        "security_group_ids": st.lists(ids, max_size=3) | st.just(["sg-1"] * 6),
        "encrypt_inter_container_traffic": st.booleans(),
        "enable_network_isolation": st.booleans(),
        "tags": st.dictionaries(lines, lines, max_size=4),
    },
)
GOOD: dict[str, Any] = {
    "name": "a",
    "image_uri": "image",
    "role": "arn:aws:iam::123456789012:role/R",
    "instance_type": "ml.m5.large",
    "output_path": "s3://bucket/out",
}


def spec_of(fields: dict[str, Any]) -> JobSpec | None:
    """The job, or None if it is refused, in words."""
    try:
        return parse_job_spec(fields)
    except SpecError:
        return None


@settings(max_examples=60, deadline=None)
@given(fields=jobs)
def test_no_field_crashes_the_reader(fields: dict[str, Any]) -> None:
    """Anything is a job or is refused as SpecError; a job becomes a request that the service takes."""
    spec = spec_of(fields)
    if spec is not None:
        assert find_violations(build_request(spec, job_name="job-1")) == []


@settings(max_examples=40, deadline=None)
@given(fields=jobs)
def test_each_job_is_a_request_that_the_service_takes(fields: dict[str, Any]) -> None:
    """Field by field put into a good job, so that one refusal does not hide the others: all that is left is valid."""
    kept = dict(GOOD)
    for name, value in fields.items():
        candidate = {key: item for key, item in {**kept, name: value}.items() if item is not None}
        if name == "instance_types":
            candidate.pop("instance_type", None)
        if name == "use_spot_instances" and value:
            candidate.update(max_run=60, max_wait=120, checkpoint_s3_uri="s3://checkpoints/run")
        if name == "subnets" and value:
            candidate["security_group_ids"] = ["sg-1"]
        if spec_of(candidate) is not None:
            kept = candidate
    spec = spec_of(kept)
    assert spec is not None

    assert find_violations(build_request(spec, job_name="job-1")) == []


@given(text=texts, variables=st.dictionaries(st.sampled_from(["A", "B_1", "c"]), texts))
@example(text="${A:-}$${A}${B_1", variables={"A": "${c}"})
def test_interpolation_never_runs_away(text: str, variables: dict[str, str]) -> None:
    """It ends, fails in words only, leaves a text without a reference as it is, and looks through no value again."""
    try:
        filled = interpolate(text, variables)
    except UnsetVariable:
        return
    if "${" not in text:
        assert filled == text
    assert interpolate("${A}", {"A": text}) == text
    assert not has_variables(text) or "${" in text


@given(value=texts.filter(lambda text: "\0" not in text), key=st.text(LETTERS + "._-", min_size=1, max_size=20))
def test_an_override_is_taken_literally(value: str, key: str) -> None:
    """A hyperparameter from the command line is the very text that was typed, whatever YAML would make of it."""
    override = parse_override(f"hyperparameters.{key}={value}")

    assert override.path == ("hyperparameters", key)
    spec = spec_of({**GOOD, "hyperparameters": {override.path[1]: override.value}})
    assert spec is None or spec.hyperparameters[key] == value


@given(text=st.text(max_size=60))
@example(text="inputs.=x")
@example(text="max_run.x=1")
@example(text="tensorboard_output_config.s3_output_path=s3://b")
def test_any_override_is_placed_or_refused(text: str) -> None:
    """Whatever is typed behind --set gives a place for a value or a SpecError."""
    try:
        override = parse_override(text)
    except SpecError:
        return
    assert override.path
    assert override.path[0] in JobSpec.model_fields


few = st.sampled_from("abcd")
plain = st.recursive(st.integers() | few, lambda inner: st.dictionaries(few, inner, max_size=3), max_leaves=6)


@given(base=st.dictionaries(few, plain, max_size=4), over=st.dictionaries(few, plain, max_size=4))
def test_a_profile_merged_twice_changes_nothing_more(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Merging is idempotent, keeps what the profile does not name, and changes neither."""
    before = copy.deepcopy((base, over))
    merged = merge_fields(base, over)

    assert merge_fields(merged, over) == merged
    assert all(merged[name] == value for name, value in base.items() if name not in over)
    assert (base, over) == before


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(max_size=200)
    | st.lists(st.sampled_from(list("{}[]&*:-,?|>%@`'\"#\n ab${}<!")), max_size=60).map("".join)
)
@example(text="a: &a [*a]")
@example(text="a: &a {b: *a}")
@example(text="? [1]\n: 2")
@example(text="a: !!python/object:os.system x")
@example(text="name: !!binary '!'")
@example(text="[" * 600)
@example(text="max_run: 2001-99-99")
def test_any_file_is_refused_in_words(tmp_path_factory: Any, text: str) -> None:
    """No text in a job.yaml ends in anything but a SpecError (none of these is a job)."""
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        read_job_spec(path, environment={})
    except SpecError as error:
        assume(str(error))
        return
    raise AssertionError("it is no job")
