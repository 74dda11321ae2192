"""What comes to the hosts from S3 and goes back there: channels of every kind, unpacked outputs, TensorBoard."""

import gzip
import itertools
import json

import pytest
from botocore.exceptions import ClientError
from local_rig import open_rig, statuses

from spotproof.local.hosts import find_namespace_obstacle

LIST = """
    config = json.loads((BASE / "input/config/inputdataconfig.json").read_text())
    data = BASE / "input/data"
    found = {str(p.relative_to(data)): p.read_text() for p in sorted(data.rglob("*")) if p.is_file()}
    try:
        (data / "fast/new").write_text("x")
        is_writable = True
    except OSError:
        is_writable = False
    print(json.dumps({"config": config, "found": found, "is_writable": is_writable}))
"""


@pytest.fixture(params=["namespace", "plain"])
def hosts(request):
    """Both kinds of hosts."""
    if request.param == "namespace" and find_namespace_obstacle() is not None:
        pytest.skip("no namespaces here")
    return request.param


@pytest.fixture
def rig(tmp_path, s3_server, monkeypatch):
    """A platform whose hosts are plain processes."""
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", capacity_wait_seconds=0) as rig:
        yield rig


def channel(rig, name, key, kind="S3Prefix", *, distribution=None, **more):
    source = {"S3DataType": kind, "S3Uri": f"s3://{rig.bucket}/{key}"}
    if distribution is not None:
        source["S3DataDistributionType"] = distribution
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **more}


def put(rig, **objects):
    for key, text in objects.items():
        body = text if isinstance(text, bytes) else text.encode()
        rig.s3.put_object(Bucket=rig.bucket, Key=key.replace("__", "/"), Body=body)


def facts(rig, name, host=1):
    return json.loads(rig.lines(name, host)[-1])


def test_channels_of_every_kind(tmp_path, s3_server, monkeypatch, hosts):
    """Prefixes, one object, a manifest, gzip and FastFile side by side; each is told in inputdataconfig.json."""
    with open_rig(tmp_path, s3_server, monkeypatch, hosts=hosts) as rig:
        put(rig, raw__a="A", raw__sub__b="B", raw__sub__="", packed__c="no", fast__f="F")
        put(rig, packed__c=gzip.compress(b"first ") + gzip.compress(b"second"), other__d="D", other__deep__e="E")
        rig.s3.put_object(Bucket=rig.bucket, Key="packed/d.csv.gz", Body=gzip.compress(b"csv"))
        manifest = [{"prefix": f"s3://{rig.bucket}/other/"}, "d", "deep/e"]
        put(rig, lists__manifest=json.dumps(manifest))
        name = rig.create(
            "channels",
            LIST,
            InputDataConfig=[
                channel(rig, "raw", "raw/", ContentType="text/csv", RecordWrapperType="RecordIO"),
                channel(rig, "one", "raw/sub/b", ShuffleConfig={"Seed": 7}),
                channel(rig, "listed", "lists/manifest", "ManifestFile"),
                channel(rig, "packed", "packed", CompressionType="Gzip"),
                channel(rig, "fast", "fast", InputMode="FastFile", distribution="ShardedByS3Key"),
            ],
        )
        assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
        result = facts(rig, name)
    assert result["found"] == {
        "raw/a": "A",
        "raw/sub/b": "B",
        "one/b": "B",
        "listed/d": "D",
        "listed/deep/e": "E",
        "packed/c": "first second",
        "packed/d.csv": "csv",
        "fast/f": "F",
    }
    assert result["is_writable"] == (hosts == "plain")
    full = {"S3DistributionType": "FullyReplicated", "TrainingInputMode": "File", "RecordWrapperType": "None"}
    assert result["config"] == {
        "raw": {**full, "ContentType": "text/csv", "RecordWrapperType": "RecordIO"},
        "one": full,
        "listed": full,
        "packed": full,
        "fast": {**full, "S3DistributionType": "ShardedByS3Key", "TrainingInputMode": "FastFile"},
    }


def test_sharded_channels_give_each_host_its_part(rig):
    """ShardedByS3Key: every object on exactly one host, as evenly as can be; FullyReplicated: all on each."""
    put(rig, **{f"data__{index:02d}": str(index) for index in range(7)})
    name = rig.create(
        "shards",
        LIST,
        hosts=3,
        InputDataConfig=[
            channel(rig, "parts", "data/", distribution="ShardedByS3Key"),
            channel(rig, "whole", "data/0", distribution="FullyReplicated"),
        ],
    )
    assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
    found = [facts(rig, name, host)["found"] for host in (1, 2, 3)]
    parts = [sorted(key for key in one if key.startswith("parts/")) for one in found]
    assert parts[0] == ["parts/00", "parts/03", "parts/06"]
    assert sorted(itertools.chain(*parts)) == [f"parts/{index:02d}" for index in range(7)]
    assert sorted(map(len, parts)) == [2, 2, 3]
    assert all(sum(key.startswith("whole/") for key in one) == 7 for one in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "must be a JSON list"),
        ("[]", "must be a JSON list"),
        ('{"prefix": "s3://b/"}', "must be a JSON list"),
        ('[{"prefix": "/etc/"}, "passwd"]', "must be a JSON list"),
        ('[{"prefix": "s3://BUCKET/x/"}, "../up"]', "can't be a file's name"),
        ('[{"prefix": "s3://BUCKET/x/"}, 5]', "is no name"),
        ('[{"prefix": "s3://BUCKET/x/"}]', "No S3 objects found"),
    ],
)
def test_a_manifest_of_another_form_is_refused(rig, text, words):
    """A manifest is read when the job is created; what is wrong with it is said."""
    put(rig, manifest=text.replace("BUCKET", rig.bucket))
    with pytest.raises(ClientError, match=words):
        rig.create("refused", LIST, InputDataConfig=[channel(rig, "train", "manifest", "ManifestFile")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "AugmentedManifestFile"}, "only be used if the Channel's input mode is Pipe"),
        (
            {"kind": "AugmentedManifestFile", "InputMode": "FastFile"},
            "only be used if the Channel's input mode is Pipe",
        ),
        ({"InputMode": "Pipe"}, "no Pipe mode. Use File, or FastFile"),
        ({"kind": "ManifestFile", "key": "nothing"}, "does not exist"),
        ({"kind": "Converse"}, "no Converse"),
    ],
)
def test_channels_that_are_not_modelled_are_refused_by_name(rig, changes, words):
    """What would only look right is refused before anything starts."""
    put(rig, key="x")
    with pytest.raises(ClientError, match=words):
        rig.create("refused", LIST, InputDataConfig=[channel(rig, "train", **{"key": "key", **changes})])
    with pytest.raises(ClientError, match="must be unique"):
        rig.create("twice", LIST, InputDataConfig=[channel(rig, "train", "key")] * 2)


def test_data_that_is_not_what_the_channel_says_fails_the_job(rig):
    """An object of a manifest that is not there, and gzip that is none: a ClientError that names it."""
    put(rig, manifest=json.dumps([{"prefix": f"s3://{rig.bucket}/x/"}, "missing"]), plain="not gzip", cut=b"")
    rig.s3.put_object(Bucket=rig.bucket, Key="cut", Body=gzip.compress(b"x" * 1000)[:-9])
    jobs = {
        "x/missing": channel(rig, "train", "manifest", "ManifestFile"),
        "incorrect header": channel(rig, "train", "plain", CompressionType="Gzip"),
        "ends too early": channel(rig, "train", "cut", CompressionType="Gzip"),
    }
    for index, (words, data) in enumerate(jobs.items()):
        name = rig.create(f"wrong-{index}", LIST, InputDataConfig=[data])
        reason = rig.wait(name)["FailureReason"]
        assert reason.startswith("ClientError: Data download failed: "), reason
        assert words in reason


def test_outputs_without_compression(rig):
    """CompressionType NONE: each file of model and output data is an object; a link that leads out is not followed."""
    script = """
        (BASE / "model/sub").mkdir()
        (BASE / "model/sub/weights").write_text("w")
        (BASE / "model/latest").symlink_to("sub/weights")
        (BASE / "model/leak").symlink_to("/etc/passwd")
        (BASE / "output/data/log").write_text("l")
        if os.environ.get("FAIL"):
            sys.exit(1)
    """
    output = {"S3OutputPath": f"s3://{rig.bucket}/out", "CompressionType": "NONE"}
    description = rig.run("flat", script, OutputDataConfig=output)
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{rig.bucket}/out/flat/output/model/"
    assert rig.keys("out/flat") == [
        "out/flat/output/data/log",
        "out/flat/output/model/latest",
        "out/flat/output/model/sub/weights",
    ]
    assert rig.read("out/flat/output/model/latest") == b"w"
    rig.run("flat-fails", script, OutputDataConfig=output, Environment={"FAIL": "1"})
    assert rig.keys("out/flat-fails") == ["out/flat-fails/output/data/log"]


def test_tensorboard_files_go_to_s3_while_the_job_runs(tmp_path, s3_server, monkeypatch):
    """/opt/ml/output/tensorboard is mirrored live, survives a reclaim in S3 only, and is never read back."""
    script = """
        board = BASE / "output/tensorboard"
        print("FOUND", sorted(os.listdir(board)), flush=True)
        if not (CHECKPOINTS / "once").exists():
            (board / "run").mkdir()
            (board / "run/events.1").write_text("first")
            while not (board / "run/events.1.sagemaker-uploaded").exists():
                time.sleep(0.01)
            save("once", "")
            wait_uploaded("once")
            report(1)
            time.sleep(600)
        (board / "events.2").write_text("second")
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", reclaim="step:1", capacity_wait_seconds=0) as rig:
        name = rig.create("board", script, TensorBoardOutputConfig={"S3OutputPath": f"s3://{rig.bucket}/boards/"})
        assert "Interrupted" in statuses(rig.wait(name))
        assert [line for line in rig.lines(name) if line.startswith("FOUND")] == ["FOUND []", "FOUND []"]
        where = "boards/board/tensorboard-output"
        assert rig.keys("boards") == [f"{where}/events.2", f"{where}/run/events.1"]
        assert rig.keys("ck/") == ["ck/board/once"]
