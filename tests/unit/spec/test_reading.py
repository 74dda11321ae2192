"""Profiles, overrides and variables: which value counts, and whose fault a wrong one is."""

from pathlib import Path

import pytest

from spotproof.errors import SpecError
from spotproof.spec import Deadline, JobSpec, profile_names, read_job_spec

JOB = """\
name: job
image_uri: ${IMAGE:-image:latest}
role: arn:aws:iam::${ACCOUNT}:role/R
instance_types: [ml.g5.xlarge, ml.g4dn.xlarge]
use_spot_instances: true
max_run: ${MAX_RUN:-3600}
max_wait: 7200
checkpoint_s3_uri: s3://bucket/checkpoints
output_path: s3://bucket/output
inputs:
  training: data
hyperparameters:
  trainer.max_epochs: 3
  steps: 100
environment:
  TOKEN: ${TOKEN:-}
  ZERO: "${ZERO:-0123}"
profiles:
  debug:
    instance_type: ml.m5.large
    max_run: 60
    hyperparameters: {steps: 5, steps_unset: "${NEVER_SET}"}
    inputs:
      training: {distribution: ShardedByS3Key, s3_uri: data}
  on-demand:
    use_spot_instances: false
    max_wait: null
    hyperparameters: {steps: null}
"""
VARIABLES = {"ACCOUNT": "123456789012"}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def read(job: Path, *overrides: str, profile: str | None = None, **variables: str) -> JobSpec:
    return read_job_spec(job, profile=profile, overrides=overrides, environment={**VARIABLES, **variables})


def refusal(job: Path, *overrides: str, profile: str | None = None, **variables: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(job, *overrides, profile=profile, **variables)
    return str(caught.value)


def test_variables_stand_for_values_of_the_fields_type(job: Path) -> None:
    """A number stays a number, a text stays the text it is, and a default counts where nothing is set."""
    spec = read(job, MAX_RUN="60", ZERO="007")

    assert spec.role == "arn:aws:iam::123456789012:role/R"
    assert spec.image_uri == "image:latest"
    assert spec.max_run == 60
    assert spec.environment == {"TOKEN": "", "ZERO": "007"}


def test_unset_variable_is_named_with_its_place(job: Path) -> None:
    """Line and column of the value, the variable, and how to set it."""
    message = refusal(job, ACCOUNT="").replace("''", "")
    with pytest.raises(SpecError) as caught:
        read_job_spec(job, environment={})

    assert "no role ARN" in message
    assert "line 3, column 7, role: The variable ACCOUNT is not set." in str(caught.value)
    assert "${ACCOUNT:-" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("${1A}", "names no variable"), ("${A", "names no variable"), ("${A:=b}", "${NAME:-default}"), ("${}", "$${")],
)
def test_what_is_no_reference(job: Path, text: str, expected: str) -> None:
    """Another form of reference is refused, with the form there is."""
    job.write_text(JOB.replace("image_uri: ${IMAGE:-image:latest}", f"image_uri: '{text}'"))

    assert expected in refusal(job)


def test_an_escaped_dollar_is_a_dollar(job: Path) -> None:
    """$${X} is the text ${X}."""
    job.write_text(JOB.replace("${TOKEN:-}", "a$${TOKEN}b$c"))

    assert read(job).environment["TOKEN"] == "a${TOKEN}b$c"


def test_a_value_is_not_looked_through_again(job: Path) -> None:
    """A variable whose value looks like a reference is that text."""
    assert read(job, TOKEN="${ACCOUNT}").environment["TOKEN"] == "${ACCOUNT}"


def test_what_is_replaced_needs_no_variable(job: Path) -> None:
    """Variables of values that do not count, of other profiles too, need not be set."""
    role = "arn:aws:iam::210987654321:role/Other"

    assert read_job_spec(job, overrides=[f"role={role}"], environment={}).role == role


def test_a_profile_replaces_some_fields(job: Path) -> None:
    """Mappings are joined, all else is replaced; one instance type takes the place of a list of them."""
    assert profile_names(job) == ["debug", "on-demand"]

    spec = read(job, profile="debug", NEVER_SET="x")

    assert spec.instance_types == ("ml.m5.large",)
    assert spec.max_run == 60
    assert spec.hyperparameters == {"trainer.max_epochs": 3, "steps": 5, "steps_unset": "x"}
    assert spec.inputs["training"].distribution == "ShardedByS3Key"
    assert spec.inputs["training"].local_path == job.parent / "data"


def test_null_takes_a_field_away(job: Path) -> None:
    """In a profile and on the command line."""
    on_demand = read(job, profile="on-demand")

    assert on_demand.max_wait is None
    assert on_demand.hyperparameters == {"trainer.max_epochs": 3}
    assert read(job, "use_spot_instances=false", "max_wait=null").max_wait is None


def test_errors_in_a_profile_point_into_it(job: Path) -> None:
    """The line is that of the profile's value, and also unused profiles are looked at for misspelt fields."""
    job.write_text(JOB.replace("max_run: 60", "max_run: 0"))
    assert "line 21, column 5, max_run: 0 seconds are out of range" in refusal(job, profile="debug", NEVER_SET="")

    job.write_text(JOB.replace("    max_run: 60", "    max_runn: 60"))
    assert "line 21, column 5, profiles.debug.max_runn: there is no such field. Did you mean 'max_run'?" in refusal(job)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("profiles: [a]", "no mapping of profiles"), ("profiles: {a: b}", "no mapping of profiles")],
)
def test_what_is_no_profile(job: Path, text: str, expected: str) -> None:
    """Profiles are mappings by name."""
    job.write_text(JOB[: JOB.index("profiles:")] + text)

    assert expected in refusal(job)


def test_unknown_profile(job: Path) -> None:
    """Those that there are, are named."""
    assert "It has: debug, on-demand." in refusal(job, profile="fast")


def test_set_reaches_every_kind_of_field(job: Path) -> None:
    """Numbers, switches, texts, lists, what is in mappings, and hyperparameters with dots and by their short names."""
    spec = read(
        job,
        "max_run=600",
        "use_spot_instances=true",
        "name=other",
        "instance_types=[ml.m5.large, ml.m5.xlarge]",
        "deadline=36h",
        "max_cost_usd=4.5",
        "entrypoint=train.py --flag 'two words'",
        "tags.team=vision",
        "environment.ZERO=007",
        "hyperparameters.trainer.max_epochs=7",
        "steps=1e3",
        "learning.rate=0.10",
        "inputs.training.distribution=ShardedByS3Key",
        "inputs.more=s3://bucket/more/",
        "tensorboard_output_config.s3_output_path=s3://bucket/tb",
        "metric_definitions=[{Name: a, Regex: (a)}]",
    )

    assert (spec.max_run, spec.name, spec.max_cost_usd) == (600, "other", 4.5)
    assert spec.instance_types == ("ml.m5.large", "ml.m5.xlarge")
    assert spec.deadline == Deadline(after_seconds=36 * 3600)
    assert spec.entrypoint == ("train.py", "--flag", "two words")
    assert spec.tags == {"team": "vision"}
    assert spec.environment["ZERO"] == "007"
    assert spec.hyperparameters == {"trainer.max_epochs": "7", "steps": "1e3", "learning.rate": "0.10"}
    assert spec.inputs["training"].distribution == "ShardedByS3Key"
    assert spec.inputs["training"].local_path == job.parent / "data"
    assert spec.inputs["more"].s3_uri == "s3://bucket/more/"
    assert spec.tensorboard_output_config is not None
    assert spec.metric_definitions[0].Name == "a"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("max_run=0", "--set max_run: 0 seconds are out of range"),
        ("max_run=soon", "--set max_run: 'soon' is not a whole number"),
        ("max_runn=5", "Did you mean 'max_run'?"),
        ("max_run.x=5", "--set max_run.x: max_run has no x."),
        ("base_job_name=x", "Write it as name."),
        ("inputs.training.distributoin=x", "'distributoin'"),
        ("profiles.debug.max_run=5", "Choose one with --profile"),
        ("hyperparameters.=5", "a name is missing"),
        ("max_run", "names no value"),
        ("=5", "names no value"),
        ("use_spot_instances=yes", "'yes' is not true or false"),
        ("instance_types=ml.m5.large", "is not a list"),
        ("inputs.training=nowhere", "does not exist"),
    ],
)
def test_wrong_overrides_name_the_option(job: Path, override: str, expected: str) -> None:
    """A value from the command line is refused as such, not as a line of the file."""
    if "distributoin" in override:
        # a channel of that name, whose place is a path that does not exist
        assert "does not exist" in refusal(job, override)
    else:
        message = refusal(job, override)
        assert expected in message
        assert "line 6" not in message


def test_secrets_are_not_repeated(job: Path) -> None:
    """Values of the environment are in no message, however they came."""
    secret = "s3cr3t" * 100

    for message in (refusal(job, TOKEN=secret), refusal(job, f"environment.TOKEN={secret}")):
        assert "512" in message
        assert "s3cr3t" not in message


def test_local_paths_are_relative_to_who_names_them(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's to the file, the command line's to where we are."""
    here = tmp_path / "elsewhere"
    (here / "data").mkdir(parents=True)
    monkeypatch.chdir(here)

    assert read(job).inputs["training"].local_path == tmp_path / "data"
    assert read(job, "inputs.training=data").inputs["training"].local_path == here / "data"
    assert read(job, "inputs.training.s3_uri=data").inputs["training"].local_path == here / "data"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("keep_alive_period_in_seconds: 60", "Spot machines are not kept warm"),
        ("subnets: [subnet-1]", "security_group_ids is missing"),
        ("subnets: [" + "subnet-1, " * 17 + "]", "The service takes 16."),
        ("volume_size: 0", "1 GB to 16 TB"),
        ("volume_kms_key: 'a b'", "no KMS key"),
        ("region: Frankfurt", "eu-west-1"),
        ("tags: {aws:x: y}", "aws: is reserved"),
        ("tags: {team: yes}", "Put it in quotes"),
        ("container_arguments: []", "1 to 100"),
        ("instance_groups: []", "All machines of a job are alike"),
        ("disable_profiler: true", "the profiler are off"),
        ("input_mode: Fast", "'File', 'FastFile', 'Pipe'"),
        ("inputs: {a: {}}", "A channel has one source"),
        ("inputs: {a: {s3_uri: s3://bucket/a, compresion: Gzip}}", "Did you mean 'compression'?"),
        ("inputs: {a: {s3_uri: s3://bucket/a, s3_data_type: AugmentedManifestFile, attribute_names: [x]}}", "Pipe"),
        ("inputs: {a: {file_system_id: fs-0123456789abcdef0}}", "file_system_type is missing"),
        (
            "inputs: {a: {file_system_id: fs-0123456789abcdef0, file_system_type: EFS, directory_path: /a}}",
            "A file system lies in your VPC",
        ),
        ("tensorboard_output_config: {s3_output_path: s3://bucket/checkpoints/tb}", "also holds"),
        ('hyperparameters: {a: "x\\ny"}', "one line"),
        ("max_wait: 3000", "less than max_run=3600"),
    ],
)
def test_what_the_service_refuses_is_refused(job: Path, lines: str, expected: str) -> None:
    """Rules of the service, in words, before anything is asked."""
    name = lines.partition(":")[0]
    spec = JOB[: JOB.index("profiles:")]
    if f"\n{name}:" in spec:
        spec = spec.replace("inputs:\n  training: data\n", "") if name == "inputs" else spec
        spec = spec.replace("max_wait: 7200\n", "") if name == "max_wait" else spec
        spec = spec[: spec.index("hyperparameters:")] if name == "hyperparameters" else spec
    job.write_text(f"{spec}{lines}\n")

    assert expected in refusal(job)


def test_a_field_whose_lines_are_commented_out_is_left_out(job: Path) -> None:
    """`hyperparameters:` with nothing below it is no mistake; a required field still is missing."""
    text = JOB[: JOB.index("profiles:")].replace("  trainer.max_epochs: 3\n  steps: 100\n", "")
    job.write_text(text)
    assert read(job).hyperparameters == {}

    job.write_text(text.replace("output_path: s3://bucket/output", "output_path:"))
    assert "line 9, column 1, output_path: it is missing" in refusal(job)
