"""job.yaml: what is wrong is named with its line, its value and the remedy, before anything starts."""

from pathlib import Path

import pytest

from spotproof.errors import SpecError
from spotproof.spec import JobSpec, hyperparameter_text, parse_job_spec, read_job_spec, split_s3_uri

GOOD = """\
name: cifar10
image_uri: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/cifar10:latest
role: arn:aws:iam::123456789012:role/Train
instance_type: ml.g5.xlarge
use_spot_instances: true
max_run: 3600
max_wait: 7200
checkpoint_s3_uri: s3://bucket/checkpoints
output_path: s3://bucket/output
inputs:
  training: data
  other: s3://bucket/other
source_dir: .
entrypoint: train.py --verbose "two words"
hyperparameters:
  lr: 0.1
  flag: true
  epochs: 3
  sizes: [1, 2]
environment:
  THREADS: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_job_spec(write(folder, text))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_good_file_is_read(folder: Path) -> None:
    """A right file gives a JobSpec with local paths resolved from its own folder."""
    spec = read_job_spec(write(folder, GOOD))

    assert {name: channel.s3_uri for name, channel in spec.inputs.items()} == {
        "training": str(folder / "data"),
        "other": "s3://bucket/other",
    }
    assert spec.local_inputs == {"training": folder / "data"}
    assert spec.source_dir == folder
    assert spec.entrypoint == ("train.py", "--verbose", "two words")
    assert spec.environment == {"THREADS": "2"}
    assert spec.checkpoint_directory == "/opt/ml/checkpoints"
    assert spec.instance_count == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "True"), (0.1, "0.1"), (3, "3"), ("abc", "abc"), ([1, 2], "[1, 2]"), (["a"], '["a"]'), (1e-05, "1e-05")],
)
def test_hyperparameters_are_sent_as_the_sdk_sends_them(value: object, text: str) -> None:
    """Without an entry point SDK v2 sends str(value); lists are JSON, so that strings in them can be read back."""
    assert hyperparameter_text(value) == text  # type: ignore[arg-type]


LOGIN = "arn:aws:lambda:eu-west-1:111122223333:function:login"


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("name: cifar_10", "name", ["line 1", "'cifar_10'", "'cifar-10'"]),
        ("name: " + "x" * 64, "name", ["63"]),
        ("image_uri: 'a b'", "image_uri", ["registry/repository:tag"]),
        ("training_repository_access_mode: Vpc", "training_repository_access_mode", ["subnets"]),
        ("training_repository_access_mode: vpc", "training_repository_access_mode", ["Platform", "Vpc"]),
        (f"training_repository_credentials_provider_arn: {LOGIN}", "training_repository_cred", ["access_mode: Vpc"]),
        (
            "training_repository_credentials_provider_arn: user",
            "training_repository_cred",
            ["'user'", "arn:aws:lambda"],
        ),
        ("enable_infra_check: 1", "enable_infra_check", ["true or false"]),
        ("role: MyRole", "role", ["line 3", "arn:aws:iam::<12-digit account>:role/MyRole"]),
        ("instance_type: g5.xlarge", "instance_type", ["ml.g5.xlarge"]),
        ("instance_count: 0", "instance_count", ["1 or more"]),
        ("instance_count: '2'", "instance_count", ["whole number without quotes"]),
        ("instance_count: 1.5", "instance_count", ["1.5", "whole number"]),
        ("use_spot_instances: 'yes'", "use_spot_instances", ["true or false"]),
        ("max_run: 0", "max_run", ["28 days"]),
        ("max_run: 2419201", "max_run", ["2419200"]),
        ("max_wait: 60", "max_wait", ["line 7", "max_wait=60", "max_run=3600", "3600 or more"]),
        ("max_retry_attempts: 31", "max_retry_attempts", ["1 to 30"]),
        ("checkpoint_s3_uri: bucket/ck", "checkpoint_s3_uri", ["s3://bucket/ck"]),
        ("checkpoint_s3_uri: s3://bucket/", "checkpoint_s3_uri", ["output_path", "s3://bucket/checkpoints/"]),
        ("checkpoint_local_path: checkpoints", "checkpoint_local_path", ["/opt/ml/checkpoints"]),
        ("checkpoint_local_path: /opt/ml", "checkpoint_local_path", ["'/opt/ml' is no place of its own"]),
        ("checkpoint_local_path: /", "checkpoint_local_path", ["no place of its own"]),
        ("checkpoint_local_path: /opt/ml/input/ck", "checkpoint_local_path", ["no place of its own"]),
        ("checkpoint_local_path: /opt/../etc", "checkpoint_local_path", ["no place of its own"]),
        ("checkpoint_s3_uri: https://bkt.s3.eu-west-1.amazonaws.com/ck", "checkpoint_s3_uri", ["example s3://bkt/ck"]),
        ("checkpoint_s3_uri: s3:///ck", "checkpoint_s3_uri", ["example s3://my-bucket/ck"]),
        ("output_path: s3://B_1/x", "output_path", ["s3://b-1/x"]),
        ("output_path: s3://bucket/" + "x" * 1024, "output_path", ["1024"]),
        ("inputs: {training: nowhere}", "inputs.training", ["'nowhere' does not exist"]),
        ("inputs: {a b: data}", "inputs", ["'a b'", "64"]),
        ("inputs: {c: 'http://x'}", "inputs", ["s3://"]),
        ("inputs: [data]", "inputs", ["key: value"]),
        ("source_dir: nowhere", "source_dir", ["no folder"]),
        ("entrypoint: 'a \"b'", "entrypoint", ["quotation"]),
        ("entrypoint: []", "entrypoint", ["train.py"]),
        ("hyperparameters: {data: {batch_size: 1}}", "hyperparameters.data", ["data.batch_size"]),
        ("hyperparameters: {lr: }", "hyperparameters.lr", ["no value"]),
        ("hyperparameters: {day: 2020-01-01}", "hyperparameters.day", ["date", "quotes"]),
        ("hyperparameters: {a: " + "x" * 2501 + "}", "hyperparameters", ["2501", "2500"]),
        ("hyperparameters: {" + ", ".join(f"k{i}: 1" for i in range(101)) + "}", "hyperparameters", ["101"]),
        ("environment: {1A: x}", "environment", ["'1A'"]),
        ("environment: {A: yes}", "environment.A", ["True", "quotes"]),
        ("environment: {A: " + "x" * 513 + "}", "environment", ["512"]),
        ("metric_definitions: [{Name: loss, Regex: 'loss='}]", "metric_definitions", ["captures nothing"]),
        ("metric_definitions: [{Name: loss, Regex: '('}]", "metric_definitions", ["no regular expression"]),
        ("metric_definitions: [{name: a, Regex: '(a)'}]", "metric_definitions", ["Did you mean 'Name'"]),
        ("metric_definitions: [{Name: a, Regex: (a)}, {Name: a, Regex: (b)}]", "metric_definitions", ["twice"]),
        ("metric_definitions: loss", "metric_definitions", ["a list"]),
    ],
)
def test_wrong_value_is_refused_in_words(folder: Path, line: str, field: str, expected: list[str]) -> None:
    """Each rule of the service that can be known beforehand is refused with field, value and remedy."""
    name = line.partition(":")[0]
    kept: list[str] = []
    is_inside = False
    for old in GOOD.splitlines():
        if not old.startswith(" "):
            is_inside = old.startswith(f"{name}:")
            kept += [line] if is_inside else [old]
        elif not is_inside:
            kept.append(old)
    text = "\n".join(kept if line in kept else [*kept, line])

    message = refusal(folder, text)

    assert field in message
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("use_spot_instance", "use_spot_instances"),
        ("max_wait_time", "max_wait"),
        ("image", "image_uri"),
        ("rol", "role"),
    ],
)
def test_misspelt_field_gets_a_suggestion(folder: Path, wrong: str, right: str) -> None:
    """A field that nearly is one gets the right name; its absence is not reported as well."""
    message = refusal(folder, GOOD.replace(f"{right}:", f"{wrong}:"))

    assert f"{wrong}: there is no such field. Did you mean '{right}'?" in message
    assert f"{right}: it is missing" not in message


def test_missing_field_is_named(folder: Path) -> None:
    """A required field that is not there is named."""
    assert "role: it is missing" in refusal(folder, GOOD.replace("role:", "# role:"))


def test_all_errors_come_at_once(folder: Path) -> None:
    """Two mistakes are two lines of one message, in the order of the file."""
    message = refusal(folder, GOOD.replace("ml.g5", "g5").replace("max_run: 3600", "max_run: 0"))

    assert message.index("line 4, column 1, instance_type") < message.index("line 6, column 1, max_run")


def test_spot_needs_max_wait_and_checkpoints(folder: Path) -> None:
    """A spot job without max_wait or without checkpoints is refused: the second would begin from nothing each time."""
    assert "max_wait is missing" in refusal(folder, GOOD.replace("max_wait:", "# "))
    assert "checkpoint_s3_uri is missing" in refusal(folder, GOOD.replace("checkpoint_s3_uri:", "# "))


def test_max_wait_needs_spot(folder: Path) -> None:
    """The service takes max_wait for spot only."""
    assert "without use_spot_instances" in refusal(folder, GOOD.replace("use_spot_instances: true", ""))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("- a", "a list, not a mapping"),
        ("just words", "a str, not a mapping"),
        ("a: [1\nb: 2", "line 2, column 2: this is no YAML"),
        ("name: a\nname: b", "line 2, column 1, name: it is given twice, first in line 1"),
        ("1: a", "1 is no field"),
    ],
)
def test_file_that_is_no_job(folder: Path, text: str, expected: str) -> None:
    """Whatever is not a mapping of fields is said to be so, with the line where there is one."""
    assert expected in refusal(folder, text)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are no text each get their own words."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, expected in [("none.yaml", "There is no file"), (".", "is a folder"), ("binary", "no text file")]:
        with pytest.raises(SpecError, match=expected):
            read_job_spec(tmp_path / path)


def test_given_values_replace_those_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and hyperparameters of the call beat the file; local paths of the call are relative to where we are."""
    (folder / "here").mkdir()
    monkeypatch.chdir(folder)

    spec = read_job_spec(write(folder, GOOD), inputs=["other=here"], overrides=["hyperparameters.lr=0.5"])

    assert spec.inputs["other"].s3_uri == str(folder / "here")
    assert spec.hyperparameters["lr"] == "0.5"
    assert spec.hyperparameters["epochs"] == 3


def test_spec_cannot_be_changed() -> None:
    """A JobSpec is what was checked, for ever."""
    spec = parse_job_spec(
        {
            "name": "a",
            "image_uri": "image",
            "role": "arn:aws:iam::123456789012:role/R",
            "instance_type": "ml.m5.large",
            "output_path": "s3://bucket/out",
        }
    )

    assert isinstance(spec, JobSpec)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "b"  # type: ignore[misc]


def test_s3_uri_is_split() -> None:
    """Bucket and prefix, with and without a prefix."""
    assert split_s3_uri("s3://bucket/a/b/") == ("bucket", "a/b/")
    assert split_s3_uri("s3://bucket") == ("bucket", "")
