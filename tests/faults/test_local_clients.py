"""AWS's clients at the one endpoint: boto3 for every service, with nothing but the environment's variables."""

import io
import json
import threading
import urllib.error
import urllib.request

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from local_rig import open_rig

from spotproof.local import Image
from spotproof.local.validate import _compiled


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory, s3_server):
    """A rig whose clients all go to the platform's own URL, S3 too."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        open_rig(tmp_path_factory.mktemp("clients"), s3_server, monkeypatch, hosts="plain") as rig,
    ):
        made = []

        def client(service, secret=None, **options):
            found = boto3.client(
                service,
                "eu-west-1",
                endpoint_url=rig.platform.url,
                aws_access_key_id=s3_server.access_key,
                aws_secret_access_key=secret or s3_server.secret_key,
                config=Config(retries={"max_attempts": 1}),
                **options,
            )
            made.append(found)
            return found

        rig.client = client
        yield rig
        for found in made:
            found.close()


def test_s3_objects_pass_in_parts_and_as_they_are(endpoint):
    """A multipart upload and a ranged download of an object with an awkward key, with the bytes intact."""
    s3 = endpoint.client("s3")
    content = bytes(range(256)) * 80_000
    transfer = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)

    s3.upload_fileobj(io.BytesIO(content), endpoint.bucket, "a b/ü+%.bin", Config=transfer)
    found = io.BytesIO()
    s3.download_fileobj(endpoint.bucket, "a b/ü+%.bin", found, Config=transfer)

    assert s3.head_object(Bucket=endpoint.bucket, Key="a b/ü+%.bin")["ETag"].endswith('-4"')
    assert found.getvalue() == content


def test_s3_conditional_writes(endpoint):
    """Of several that create one object, one succeeds; a write on a stale ETag is refused."""
    s3 = endpoint.client("s3")
    outcomes, refusals = [], []

    def create(number):
        try:
            s3.put_object(Bucket=endpoint.bucket, Key="lock", Body=str(number).encode(), IfNoneMatch="*")
            outcomes.append(number)
        except ClientError as error:
            refusals.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == 1
    assert refusals == ["PreconditionFailed"] * 7
    answer = s3.get_object(Bucket=endpoint.bucket, Key="lock")
    assert answer["Body"].read() == str(outcomes[0]).encode()
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=endpoint.bucket, Key="lock", Body=b"", IfMatch='"0"')
    s3.put_object(Bucket=endpoint.bucket, Key="lock", Body=b"", IfMatch=answer["ETag"])


def test_a_presigned_url_needs_no_headers(endpoint):
    """The scope in the query leads to S3; a changed signature is refused there."""
    s3 = endpoint.client("s3")
    s3.put_object(Bucket=endpoint.bucket, Key="signed", Body=b"content")
    url = s3.generate_presigned_url("get_object", {"Bucket": endpoint.bucket, "Key": "signed"})

    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"
    for wrong in (url[:-4] + "0000", url.partition("?")[0]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong)
        assert refused.value.code == 403
        refused.value.close()


@pytest.mark.parametrize("encryption", [{"ServerSideEncryption": "AES256"}, {"ServerSideEncryption": "aws:kms"}])
def test_encryption_is_accepted(endpoint, encryption):
    """What the SageMaker SDK sends with each upload: accepted, told back, and the object is readable."""
    s3 = endpoint.client("s3")

    answer = s3.put_object(Bucket=endpoint.bucket, Key="x y/ü", Body=b"content", **encryption)
    s3.upload_fileobj(io.BytesIO(b"0" * (9 << 20)), endpoint.bucket, "large", ExtraArgs=encryption)

    assert answer["ServerSideEncryption"] == encryption["ServerSideEncryption"]
    assert s3.get_object(Bucket=endpoint.bucket, Key="x y/ü")["Body"].read() == b"content"
    assert s3.head_object(Bucket=endpoint.bucket, Key="large")["ContentLength"] == 9 << 20


def test_a_wrong_key_is_refused_with_encryption_too(endpoint):
    """Signing anew is no way around the signature."""
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        endpoint.client("s3", secret="wrong").put_object(
            Bucket=endpoint.bucket, Key="x", Body=b"", ServerSideEncryption="aws:kms"
        )


def test_sts(endpoint):
    """Who am I; and a role's credentials reach S3."""
    sts = endpoint.client("sts")

    assert sts.get_caller_identity()["Account"] == "123456789012"
    answer = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/Training", RoleSessionName="test")
    assert answer["AssumedRoleUser"]["Arn"] == "arn:aws:sts::123456789012:assumed-role/Training/test"
    keys = answer["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    s3 = session.client("s3", endpoint_url=endpoint.platform.url, region_name="us-east-1")
    assert endpoint.bucket in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    s3.close()


def test_any_role_is_there_and_may_do_everything(endpoint):
    """GetRole of a name that nobody has made trusts SageMaker; the policy simulator allows; made roles are kept."""
    iam = endpoint.client("iam")

    role = iam.get_role(RoleName="Any-Role")["Role"]
    assert role["Arn"] == "arn:aws:iam::123456789012:role/Any-Role"
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert iam.list_attached_role_policies(RoleName="Other")["AttachedPolicies"] == []
    results = iam.simulate_principal_policy(
        PolicySourceArn=role["Arn"], ActionNames=["s3:PutObject", "ecr:GetAuthorizationToken"]
    )["EvaluationResults"]
    assert [(item["EvalActionName"], item["EvalDecision"]) for item in results] == [
        ("s3:PutObject", "allowed"),
        ("ecr:GetAuthorizationToken", "allowed"),
    ]
    iam.create_role(RoleName="Made", AssumeRolePolicyDocument="{}", Description="mine")
    assert iam.get_role(RoleName="Made")["Role"]["Description"] == "mine"


@pytest.mark.parametrize(
    ("service", "body", "code"),
    [
        ("sts", "Action=AssumeRole", "ValidationError"),
        ("sts", "Action=GetSessionToken&DurationSeconds=abc", "ValidationError"),
        ("sts", "Action=NoSuch", "InvalidAction"),
        ("sts", "", "InvalidAction"),
        ("sts", "%ff=%ff&Action=%ff", "InvalidAction"),
        ("iam", "Action=GetRole", "ValidationError"),
        ("iam", "Action=GetRole&RoleName=a/b", "ValidationError"),
        ("iam", "Action=GetRole&RoleName=" + "x" * 65, "ValidationError"),
        ("iam", "Action=SimulatePrincipalPolicy", "ValidationError"),
        ("ec2", "Action=DescribeInstances", "InvalidAction"),
    ],
)
def test_nonsense_is_refused_in_the_query_protocol(endpoint, service, body, code):
    """Malformed requests get an error as those services send it, never a 5xx."""
    scope = f"Credential=k/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    request = urllib.request.Request(
        endpoint.platform.url + "/", body.encode(), {"Authorization": f"AWS4-HMAC-SHA256 {scope}"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400
    assert f"<Code>{code}</Code>" in refused.value.read().decode()
    refused.value.close()


@pytest.mark.parametrize("service", ["ecr", "cloudwatch", "ec2", "lambda"])
def test_services_that_are_not_here_say_so(endpoint, service):
    """A client of another service gets an error with words, in the form that it can read."""
    operation = {"ecr": "describe_repositories", "cloudwatch": "list_metrics", "ec2": "describe_instances"}
    with pytest.raises(ClientError, match="answers for sagemaker, logs, sts, iam and s3, not"):
        getattr(endpoint.client(service), operation.get(service, "list_functions"))()


def test_describe_repeats_the_request_with_the_services_defaults(endpoint, tmp_path):
    """All of the request but its tags, with what the service adds; no member that the API lacks."""
    (tmp_path / "code").mkdir()
    endpoint.platform._images["quick"] = Image(tmp_path / "code", ["true"])
    endpoint.s3.put_object(Bucket=endpoint.bucket, Key="in/x", Body=b"x")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{endpoint.bucket}/in/"}}
    request = endpoint.request(
        "described",
        "quick",
        InputDataConfig=[{"ChannelName": "train", "DataSource": source}],
        Tags=[{"Key": "a", "Value": "b"}],
        SessionChainingConfig={"EnableSessionTagChaining": True},
        Environment={"A": "b"},
    )
    endpoint.sagemaker.create_training_job(**request)

    answer = endpoint.wait("described")

    members = endpoint.sagemaker.meta.service_model.operation_model("DescribeTrainingJob").output_shape.members
    assert set(describe_raw(endpoint, "described")) <= set(members)
    assert "Tags" not in answer
    assert answer["Environment"] == {"A": "b"}
    assert answer["OutputDataConfig"] == {"KmsKeyId": "", "CompressionType": "GZIP", **request["OutputDataConfig"]}
    (channel,) = answer["InputDataConfig"]
    assert channel == {
        "ChannelName": "train",
        "DataSource": source,
        "CompressionType": "None",
        "RecordWrapperType": "None",
    }
    assert answer["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is False


def describe_raw(endpoint, name):
    """Return the answer as it came: boto3 drops members that it does not know."""
    request = urllib.request.Request(
        endpoint.platform.url + "/",
        json.dumps({"TrainingJobName": name}).encode(),
        {"X-Amz-Target": "SageMaker.DescribeTrainingJob"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_the_waiter_sees_the_end(endpoint):
    """boto3's waiter returns for a job that has completed, and fails for one that is not there."""
    waiter = endpoint.sagemaker.get_waiter("training_job_completed_or_stopped")
    endpoint.wait("described")

    waiter.wait(TrainingJobName="described", WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    with pytest.raises(WaiterError):
        waiter.wait(TrainingJobName="no-such-job", WaiterConfig={"Delay": 1, "MaxAttempts": 1})


def test_the_patterns_of_the_other_services_are_pythons_too():
    """Every pattern of STS and IAM can be checked; their requests are validated as SageMaker's are."""
    for service in ("sts", "iam"):
        model = ServiceModel(Loader().load_service_model(service, "service-2"))
        for name in model.shape_names:
            if pattern := model.shape_for(name).metadata.get("pattern"):
                _compiled(pattern)


def test_the_operations_are_the_models():
    """All that the API can do with a training job is answered, and nothing has a name that the API lacks."""
    from spotproof.local.api import Api
    from spotproof.local.logs_api import LogsApi

    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
    verbs = ("Create", "Describe", "List", "Stop", "Update", "Delete")
    modelled = {
        name
        for name in model.operation_names
        if name.removesuffix("s").endswith("TrainingJob") and name.startswith(verbs)
    } - {name for name in model.operation_names if "HyperParameterTuningJob" in name}
    assert set(Api({}, None, None, spot_price_factor=1)._operations) == modelled
    logs = ServiceModel(Loader().load_service_model("logs", "service-2"))
    assert set(LogsApi(None)._operations) <= set(logs.operation_names)
