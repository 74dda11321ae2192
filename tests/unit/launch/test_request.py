"""JobSpec to CreateTrainingJob: the wire's words, checked against botocore's own model."""

import re
from datetime import datetime, timezone

import pytest

from request_rules import find_violations
from spotproof.contract import PROGRESS_LINE_REGEX, STEP_METRIC_NAME, STEP_METRIC_REGEX
from spotproof.errors import SpecError
from spotproof.events import Progress, progress_line
from spotproof.launch.request import build_request, unique_job_name, with_uploaded_inputs
from spotproof.spec import Channel, JobSpec, MetricDefinition, TensorBoardOutput

SPEC = JobSpec(
    name="cifar10",
    image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/my-img:latest",
    role="arn:aws:iam::123456789012:role/R",
    instance_type="ml.m5.large",
    use_spot_instances=True,
    max_run=100,
    max_wait=200,
    max_retry_attempts=2,
    checkpoint_s3_uri="s3://bkt/ck",
    inputs={"train": Channel(s3_uri="s3://bkt/data/")},
    output_path="s3://mybkt/",
    hyperparameters={"lr": 0.1, "name": "abc", "n": 3, "flag": True, "l": [1, 2]},
    environment={"A": "b"},
    metric_definitions=(MetricDefinition(Name="loss", Regex="loss=([0-9.]+)"),),
)


def test_request_is_the_one_the_sdk_sends() -> None:
    """Member by member the request that SDK v2 was seen to send, with our metric and without its profiler."""
    assert build_request(SPEC, job_name="job-1") == {
        "AlgorithmSpecification": {
            "TrainingInputMode": "File",
            "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-img:latest",
            "MetricDefinitions": [
                {"Name": "loss", "Regex": "loss=([0-9.]+)"},
                {"Name": STEP_METRIC_NAME, "Regex": STEP_METRIC_REGEX},
            ],
        },
        "OutputDataConfig": {"S3OutputPath": "s3://mybkt/"},
        "TrainingJobName": "job-1",
        "StoppingCondition": {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 200},
        "ResourceConfig": {"VolumeSizeInGB": 30, "InstanceCount": 1, "InstanceType": "ml.m5.large"},
        "RoleArn": "arn:aws:iam::123456789012:role/R",
        "InputDataConfig": [
            {
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": "s3://bkt/data/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
                "ChannelName": "train",
            }
        ],
        "HyperParameters": {"lr": "0.1", "name": "abc", "n": "3", "flag": "True", "l": "[1, 2]"},
        "Environment": {"A": "b"},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://bkt/ck/"},
        "RetryStrategy": {"MaximumRetryAttempts": 2},
    }


MINIMAL = JobSpec(name="a", image_uri="i", role=SPEC.role, instance_type="ml.m5.large", output_path="s3://bucket/out")


@pytest.mark.parametrize(
    "spec",
    [SPEC, MINIMAL, SPEC.model_copy(update={"checkpoint_local_path": "/opt/ml/elsewhere"})],
    ids=["full", "minimal", "local-path"],
)
def test_botocore_accepts_the_request(spec: JobSpec) -> None:
    """Types, required members, lengths, patterns and enumerations of botocore's service model hold."""
    assert find_violations(build_request(spec, job_name="job-1")) == []


def test_absent_things_are_not_sent() -> None:
    """Empty lists and maps are left out: the service refuses an empty InputDataConfig."""
    request = build_request(MINIMAL, job_name="a-1")

    assert not request.keys() & {
        "InputDataConfig",
        "HyperParameters",
        "Environment",
        "CheckpointConfig",
        "RetryStrategy",
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert request["EnableManagedSpotTraining"] is False


EVERYTHING = JobSpec(
    name="full",
    image_uri="i",
    training_repository_access_mode="Vpc",
    training_repository_credentials_provider_arn="arn:aws:lambda:eu-west-1:111122223333:function:login",
    enable_infra_check=True,
    enable_remote_debug=False,
    enable_session_tag_chaining=True,
    role=SPEC.role,
    instance_types=("ml.g5.xlarge", "ml.g4dn.xlarge"),
    instance_count=2,
    volume_size=100,
    volume_kms_key="alias/disk",
    keep_alive_period_in_seconds=600,
    input_mode="FastFile",
    inputs={
        "train": Channel(s3_uri="s3://bkt/a/", distribution="ShardedByS3Key", content_type="image/png", shuffle_seed=1),
        "listed": Channel(
            s3_uri="s3://bkt/b",
            s3_data_type="AugmentedManifestFile",
            attribute_names=("source-ref",),
            input_mode="Pipe",
            record_wrapping="RecordIO",
            compression="Gzip",
        ),
        "lustre": Channel(
            file_system_id="fs-0123456789abcdef0",
            file_system_type="FSxLustre",
            directory_path="/mount/data",
            input_mode="File",
        ),
    },
    output_path="s3://mybkt/out",
    output_kms_key="alias/out",
    disable_output_compression=True,
    checkpoint_s3_uri="s3://bkt/ck/",
    checkpoint_local_path="/opt/ml/ck",
    tensorboard_output_config=TensorBoardOutput(
        s3_output_path="s3://mybkt/tb", container_local_output_path="/opt/ml/tb"
    ),
    container_entry_point=("python", "-m", "spotproof.container"),
    container_arguments=("train.py",),
    enable_sagemaker_metrics=True,
    subnets=("subnet-1",),
    security_group_ids=("sg-1",),
    encrypt_inter_container_traffic=True,
    enable_network_isolation=True,
    tags={"team": "vision"},
)


def test_each_field_is_where_the_service_reads_it() -> None:
    """Member by member, what the Estimator's words become."""
    request = build_request(EVERYTHING, job_name="full-1")

    assert find_violations(request) == []
    assert request["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "spotproof.container"]
    assert request["AlgorithmSpecification"]["ContainerArguments"] == ["train.py"]
    assert request["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is True
    assert request["AlgorithmSpecification"]["TrainingInputMode"] == "FastFile"
    assert request["AlgorithmSpecification"]["TrainingImageConfig"] == {
        "TrainingRepositoryAccessMode": "Vpc",
        "TrainingRepositoryAuthConfig": {
            "TrainingRepositoryCredentialsProviderArn": "arn:aws:lambda:eu-west-1:111122223333:function:login"
        },
    }
    assert request["InfraCheckConfig"] == {"EnableInfraCheck": True}
    assert request["RemoteDebugConfig"] == {"EnableRemoteDebug": False}
    assert request["SessionChainingConfig"] == {"EnableSessionTagChaining": True}
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.g5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 100,
        "VolumeKmsKeyId": "alias/disk",
        "KeepAlivePeriodInSeconds": 600,
    }
    assert request["OutputDataConfig"] == {
        "S3OutputPath": "s3://mybkt/out",
        "KmsKeyId": "alias/out",
        "CompressionType": "NONE",
    }
    assert request["CheckpointConfig"] == {"S3Uri": "s3://bkt/ck/", "LocalPath": "/opt/ml/ck"}
    assert request["TensorBoardOutputConfig"] == {"S3OutputPath": "s3://mybkt/tb", "LocalPath": "/opt/ml/tb"}
    assert request["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert request["EnableInterContainerTrafficEncryption"] is True
    assert request["EnableNetworkIsolation"] is True
    assert request["Tags"] == [{"Key": "team", "Value": "vision"}]
    train, listed, lustre = request["InputDataConfig"]
    assert train == {
        "ChannelName": "train",
        "ContentType": "image/png",
        "ShuffleConfig": {"Seed": 1},
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": "s3://bkt/a/",
                "S3DataDistributionType": "ShardedByS3Key",
            }
        },
    }
    assert (listed["InputMode"], listed["CompressionType"], listed["RecordWrapperType"]) == ("Pipe", "Gzip", "RecordIO")
    assert listed["DataSource"]["S3DataSource"]["AttributeNames"] == ["source-ref"]
    assert lustre["DataSource"] == {
        "FileSystemDataSource": {
            "FileSystemId": "fs-0123456789abcdef0",
            "FileSystemAccessMode": "ro",
            "FileSystemType": "FSxLustre",
            "DirectoryPath": "/mount/data",
        }
    }


def test_own_step_metric_and_full_lists_are_left_alone() -> None:
    """Our metric never replaces the user's own, nor exceeds the service's forty."""
    own = MetricDefinition(Name=STEP_METRIC_NAME, Regex="(.)")
    full = tuple(MetricDefinition(Name=f"m{i}", Regex="(.)") for i in range(40))
    for metrics in [(own,), full]:
        spec = SPEC.model_copy(update={"metric_definitions": metrics})
        sent = build_request(spec, job_name="j")["AlgorithmSpecification"]["MetricDefinitions"]
        assert sent == [{"Name": m.Name, "Regex": m.Regex} for m in metrics]


def test_step_metric_reads_our_progress_line() -> None:
    """The regular expression that is sent finds the step in the line that the runtime prints."""
    line = progress_line(Progress(attempt=1, epoch=2, step=345))
    found = re.search(STEP_METRIC_REGEX, line)

    assert found is not None
    assert found[1] == "345"
    assert re.search(PROGRESS_LINE_REGEX, line)


def test_local_inputs_must_be_uploaded_first() -> None:
    """A request never names a path of this machine; other content has another place, below the output."""
    inputs = {"train": Channel(s3_uri="/data/x"), "other": Channel(s3_uri="s3://bkt/o")}
    spec = SPEC.model_copy(update={"inputs": inputs})
    with pytest.raises(SpecError, match="S3 only"):
        build_request(spec, job_name="j")

    staged = with_uploaded_inputs(spec, {"train": "abc"})
    changed = with_uploaded_inputs(spec, {"train": "def"})

    assert {name: channel.s3_uri for name, channel in staged.inputs.items()} == {
        "train": "s3://mybkt/inputs/train/abc/",
        "other": "s3://bkt/o",
    }
    assert changed.inputs["train"].s3_uri == "s3://mybkt/inputs/train/def/"
    assert build_request(staged, job_name="j")["InputDataConfig"][0]["ChannelName"] == "train"


@pytest.mark.parametrize("base", ["a", "x" * 63, "ab-" * 20, "a" * 46 + "-" + "b" * 10])
def test_job_name_is_a_valid_one(base: str) -> None:
    """Whatever the base, the name with its time stamp matches the service's pattern and length."""
    name = unique_job_name(base, datetime(2026, 1, 2, 3, 4, 5, 67890, tzinfo=timezone.utc))

    assert name.endswith("-20260102-030405-067")
    assert len(name) <= 63
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name)
