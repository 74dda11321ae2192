"""AWS's clients at the one endpoint: boto3 for every service, with nothing but the environment's variables."""

import io
import json
import threading
import urllib.error
import urllib.request
from datetime import timedelta

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


def test_a_bucket_with_objects_is_not_deleted(endpoint):
    """``aws s3 rb`` without ``--force`` deletes nothing but an empty bucket."""
    s3 = endpoint.client("s3")
    place = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
    s3.create_bucket(Bucket=f"full-{endpoint.bucket}", **place)
    s3.put_object(Bucket=f"full-{endpoint.bucket}", Key="a/b", Body=b"kept")

    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=f"full-{endpoint.bucket}")
    assert s3.get_object(Bucket=f"full-{endpoint.bucket}", Key="a/b")["Body"].read() == b"kept"
    s3.delete_object(Bucket=f"full-{endpoint.bucket}", Key="a/b")
    s3.delete_bucket(Bucket=f"full-{endpoint.bucket}")


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


@pytest.mark.parametrize("service", ["ecr", "ec2", "lambda"])
def test_services_that_are_not_here_say_so(endpoint, service):
    """A client of another service gets an error with words, in the form that it can read."""
    operation = {"ecr": "describe_repositories", "ec2": "describe_instances"}
    with pytest.raises(ClientError, match="answers for sagemaker, logs, monitoring, sts, iam and s3, not"):
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


@pytest.fixture(scope="module")
def tagged(endpoint, tmp_path_factory):
    """The ARN of a job that has ended, with the tag ``a``."""
    endpoint.platform._images["tagged"] = Image(tmp_path_factory.mktemp("tagged"), ["true"])
    request = endpoint.request("tagged", "tagged", Tags=[{"Key": "a", "Value": "b"}])
    endpoint.sagemaker.create_training_job(**request)
    return endpoint.wait("tagged")["TrainingJobArn"]


def test_tags_of_a_job(endpoint, tagged):
    """Those of its request, more of them, others, fewer; the SDK's ``attach`` asks for them."""
    sagemaker, arn = endpoint.sagemaker, tagged

    def tags():
        return {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}

    assert tags() == {"a": "b"}
    answer = sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "c"}, {"Key": "d", "Value": ""}])
    assert answer["Tags"] == [{"Key": "a", "Value": "c"}, {"Key": "d", "Value": ""}]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "no-such"])
    assert tags() == {"d": ""}
    (found,) = sagemaker.search(
        Resource="TrainingJob", SearchExpression={"Filters": [{"Name": "Tags.d", "Operator": "Exists"}]}
    )["Results"]
    assert found["TrainingJob"]["TrainingJobArn"] == arn
    assert found["TrainingJob"]["Tags"] == [{"Key": "d", "Value": ""}]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], "Duplicate tag keys"),
        ([{"Key": "aws:mine", "Value": "1"}], "AWS's own"),
        ([{"Key": f"k{number}", "Value": ""} for number in range(50)], "50 is the limit"),
    ],
)
def test_tags_that_are_refused(endpoint, tagged, tags, words):
    """They change nothing; a job that they come with is not made."""
    sagemaker, arn = endpoint.sagemaker, tagged
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "z", "Value": "z"}])
    before = sagemaker.list_tags(ResourceArn=arn)["Tags"]

    with pytest.raises(ClientError, match=words):
        sagemaker.add_tags(ResourceArn=arn, Tags=tags)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == before
    if len(tags) < 50:
        with pytest.raises(ClientError, match=words):
            sagemaker.create_training_job(**endpoint.request("not-made", "tagged", Tags=tags))
        with pytest.raises(ClientError, match="not found"):
            sagemaker.describe_training_job(TrainingJobName="not-made")
    for wrong in (arn + "x", arn.replace("123456789012", "210987654321"), arn.replace("training", "processing")):
        with pytest.raises(ClientError, match="Requested resource not found"):
            sagemaker.list_tags(ResourceArn=wrong)


def describe_raw(endpoint, name):
    """Return the answer as it came: boto3 drops members that it does not know."""
    request = urllib.request.Request(
        endpoint.platform.url + "/",
        json.dumps({"TrainingJobName": name}).encode(),
        {"X-Amz-Target": "SageMaker.DescribeTrainingJob"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def measured(endpoint, tmp_path_factory):
    """A job whose two hosts printed metrics; and what asks for the first of them."""
    code = tmp_path_factory.mktemp("measured")
    endpoint.platform._images["measured"] = Image(code, ["sh", "-c", "echo loss=1 acc=0.5; echo loss=3; echo loss=nan"])
    definitions = [{"Name": name, "Regex": f"{name}=([a-z0-9.]+)"} for name in ("loss", "acc", "never")]
    algorithm = {"TrainingImage": "measured", "TrainingInputMode": "File", "MetricDefinitions": definitions}
    request = endpoint.request("measured", "measured", hosts=2, AlgorithmSpecification=algorithm)
    endpoint.sagemaker.create_training_job(**request)
    description = endpoint.wait("measured")
    return {
        "Namespace": "/aws/sagemaker/TrainingJobs",
        "MetricName": "loss",
        "Dimensions": [{"Name": "TrainingJobName", "Value": "measured"}],
    }, {
        "StartTime": description["TrainingStartTime"],
        "EndTime": description["TrainingEndTime"] + timedelta(minutes=1),
    }


@pytest.fixture(params=["json", "smithy-rpc-v2-cbor", "query"])
def cloudwatch(request, endpoint, monkeypatch):
    """A client that speaks one of the three protocols of CloudWatch."""
    monkeypatch.setattr("botocore.model.PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (request.param,))
    return endpoint.client("cloudwatch")


def test_metrics_in_each_protocol(measured, cloudwatch):
    """What all hosts printed, in periods; the SDK's ``training_job_analytics`` asks so."""
    metric, span = measured
    assert cloudwatch.meta.service_model.resolved_protocol in ("json", "smithy-rpc-v2-cbor", "query")
    statistics = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"]

    answer = cloudwatch.get_metric_statistics(**metric, **span, Period=3600, Statistics=statistics)

    points = answer["Datapoints"]
    assert answer["Label"] == "loss"
    assert sum(point["SampleCount"] for point in points) == 4
    assert sum(point["Sum"] for point in points) == 8
    assert {(point["Minimum"], point["Maximum"], point["Unit"]) for point in points} <= {(1, 3, "None")}
    assert all(point["Timestamp"].timestamp() % 3600 == 0 for point in points)
    query = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Average"}}
    (result,) = cloudwatch.get_metric_data(MetricDataQueries=[query], **span)["MetricDataResults"]
    assert result["StatusCode"] == "Complete"
    assert set(result["Values"]) == {point["Average"] for point in points}
    assert set(result["Timestamps"]) == {point["Timestamp"] for point in points}
    listed = cloudwatch.list_metrics(Namespace=metric["Namespace"], Dimensions=metric["Dimensions"])["Metrics"]
    assert {item["MetricName"] for item in listed} == {"loss", "acc"}
    nothing = cloudwatch.get_metric_statistics(
        **{**metric, "MetricName": "never"}, **span, Period=60, Statistics=["Sum"]
    )
    assert nothing["Datapoints"] == []


def test_refusals_in_each_protocol(measured, cloudwatch):
    """The service's codes and words, as the client reads them."""
    metric, span = measured
    for changes, code, words in (
        ({}, "InvalidParameterCombination", "At least one of the parameters"),
        ({"Statistics": ["Sum"], "Period": 61}, "InvalidParameterValue", "multiple of 60"),
        ({"Statistics": ["Median"]}, "ValidationError", "enum value set"),
        ({"ExtendedStatistics": ["p90"]}, "InvalidParameterValue", "no percentiles"),
        ({"Statistics": ["Sum"], "EndTime": span["StartTime"]}, "InvalidParameterValue", "must be less than"),
        ({"Statistics": ["Sum"], "StartTime": 0}, "InvalidParameterCombination", "exceeds the limit of 1,440"),
    ):
        with pytest.raises(ClientError, match=words) as refused:
            cloudwatch.get_metric_statistics(**{**metric, **span, "Period": 60, **changes})
        assert refused.value.response["Error"]["Code"] == code
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError, match="no operation 'PutMetricData'") as refused:
        cloudwatch.put_metric_data(Namespace="mine", MetricData=[{"MetricName": "a", "Value": 1}])
    assert refused.value.response["Error"]["Code"] == "InvalidAction"


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/service/GraniteServiceVersion20100801/operation/ListMetrics", {}, b"\xbf"),
        ("/service/GraniteServiceVersion20100801/operation/ListMetrics", {}, b"\x9b" + b"\xff" * 8),
        ("/service/GraniteServiceVersion20100801/operation/ListMetrics", {}, b"\x81" * 100_000),
        ("/service/GraniteServiceVersion20100801/operation/ListMetrics", {}, b"\x5b" + b"\xff" * 8),
        ("/service/GraniteServiceVersion20100801/operation/ListMetrics", {}, b"\xa1\xa0\x01"),
        ("/service/GraniteServiceVersion20100801/operation/NoSuch", {}, b"\xa0"),
        ("/", {"X-Amz-Target": "GraniteServiceVersion20100801.ListMetrics"}, b"{"),
        ("/", {"X-Amz-Target": "GraniteServiceVersion20100801.NoSuch"}, b"{}"),
        ("/", {}, b"Action=GetMetricStatistics&Period=abc"),
        ("/", {}, b"Action=GetMetricStatistics&StartTime=abc"),
        ("/", {}, b"Action=%ff"),
        ("/", {}, b""),
        ("/elsewhere", {}, b""),
    ],
)
def test_nonsense_for_cloudwatch_is_refused(endpoint, path, headers, body):
    """Malformed requests of any protocol get an error, never a 5xx."""
    scope = "Credential=k/20260101/us-east-1/monitoring/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}", **headers}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(endpoint.platform.url + path, body, headers))
    assert refused.value.code == 400
    refused.value.close()


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
    from spotproof.local.metrics_api import MetricsApi

    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
    verbs = ("Create", "Describe", "List", "Stop", "Update", "Delete")
    modelled = {
        name
        for name in model.operation_names
        if name.removesuffix("s").endswith("TrainingJob") and name.startswith(verbs)
    } - {name for name in model.operation_names if "HyperParameterTuningJob" in name}
    modelled |= {"AddTags", "ListTags", "DeleteTags", "Search"}
    assert set(Api({}, None, None, spot_price_factor=1)._operations) == modelled
    for service, api in (("logs", LogsApi(None)), ("cloudwatch", MetricsApi(None, None))):
        others = ServiceModel(Loader().load_service_model(service, "service-2"))
        assert set(api._operations) <= set(others.operation_names)
