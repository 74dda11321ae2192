"""What asks S3 for encryption, within jobs and beside them: accepted, as on AWS."""

import boto3
import pytest
from local_rig import Rig

from spotproof.local import LocalSageMaker

ASK = """
import boto3
from boto3.s3.transfer import TransferConfig
s3, bucket = boto3.client("s3"), os.environ["BUCKET"]
name, host = os.environ["TRAINING_JOB_NAME"], json.loads((BASE / "input/config/resourceconfig.json").read_text())
key = f"{name}/{host['current_host']}"
answer = s3.put_object(Bucket=bucket, Key=key, Body=b"small", ServerSideEncryption="aws:kms", SSEKMSKeyId="mine")
print("TOLD", answer["ServerSideEncryption"], answer["SSEKMSKeyId"])
(BASE / "model/large").write_bytes(bytes(9 << 20))
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
s3.upload_file(str(BASE / "model/large"), bucket, key + ".large", {"ServerSideEncryption": "aws:kms"}, Config=parts)
print("READ", s3.get_object(Bucket=bucket, Key=key)["Body"].read())
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A platform with an S3 server of its own, which is what has no keys for encryption."""
    folder = tmp_path_factory.mktemp("encryption")
    with LocalSageMaker(folder / "state") as platform:
        rig = Rig(platform, folder / "images")
        yield rig
        rig.close()


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_job_may_ask_for_encryption(rig, hosts):
    """PutObject and a multipart upload with aws:kms, from hosts with and without a network of their own."""
    name = f"asks-{hosts}"
    description = rig.run(name, ASK, hosts=hosts, Environment={"BUCKET": rig.bucket})

    assert description["TrainingJobStatus"] == "Completed", rig.lines(name)
    for host in range(1, hosts + 1):
        assert rig.lines(name, host) == ["TOLD aws:kms mine", "READ b'small'"]
        assert rig.read(f"{name}/algo-{host}.large") == bytes(9 << 20)


def test_so_may_a_client_with_the_environment(rig):
    """What `serve --print-env` gives a shell leads to where encryption is understood."""
    environment = rig.platform.environment()
    s3 = boto3.client(
        "s3",
        "us-east-1",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    answer = s3.put_object(Bucket=rig.bucket, Key="of-a-client", Body=b"text", ServerSideEncryption="aws:kms")
    s3.close()

    assert answer["ServerSideEncryption"] == "aws:kms"
    assert rig.read("of-a-client") == b"text"
