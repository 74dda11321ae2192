"""Small pure pieces of the local platform: images, metrics, artifacts' names, log streams, the request's rules."""

import os
import shutil
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotproof.errors import SpecError
from spotproof.local import Image, parse_image
from spotproof.local.artifacts import artifact_url, find_folders, upload_files, upload_tree
from spotproof.local.images import command_of
from spotproof.local.logs import LogReader, LogWriter
from spotproof.local.metrics import MetricReader
from spotproof.local.registry import process_start_time
from spotproof.local.removal import remove_tree
from spotproof.local.request import parse_request
from spotproof.local.shelf import ImageShelf
from spotproof.local.validate import validate
from spotproof.local.wire import WireError

PROGRESS = "[spotproof] attempt=2 epoch=1 step=17"


def test_an_image_is_read_from_one_word(tmp_path):
    """URI=FOLDER:COMMAND gives the URI, the folder and the command's words; the command may hold colons."""
    uri, image = parse_image(f"repo/name={tmp_path}:python -m spotproof.container 'train it.py' --url=http://x")

    assert uri == "repo/name"
    assert image == Image(tmp_path, ["python", "-m", "spotproof.container", "train it.py", "--url=http://x"])


@pytest.mark.parametrize(
    "text", ["", "uri", "uri=", "uri=folder", "uri=folder:", "=folder:cmd", "uri=:cmd", "uri=.:'x"]
)
def test_an_image_of_another_form_shows_the_form(text):
    """What is not URI=FOLDER:COMMAND is refused with an example."""
    with pytest.raises(SpecError, match="URI=FOLDER:COMMAND"):
        parse_image(text)


def test_an_image_without_folder_or_command_is_refused(tmp_path):
    """The folder must be there, and the command must be a list of words."""
    with pytest.raises(SpecError, match="not a directory"):
        parse_image(f"uri={tmp_path}/nothing:cmd")
    with pytest.raises(SpecError, match=r"\['python', 'train.py'\]"):
        Image(tmp_path, "python train.py")


def test_the_command_is_put_together_as_docker_does(tmp_path):
    """An entry point replaces the image's, arguments follow; python is the interpreter that runs the platform."""
    image = Image(tmp_path, ["python", "train.py"])

    assert command_of(image, [], []) == [sys.executable, "train.py"]
    assert command_of(image, [], ["--a"]) == [sys.executable, "train.py", "--a"]
    assert command_of(image, ["/bin/bash"], ["-c", "x"]) == ["/bin/bash", "-c", "x"]


def test_steps_come_from_the_metric_that_is_named_for_them():
    """A definition named spotproof:step, step or global_step gives the step; without one, our progress lines do."""
    assert MetricReader([]).read(PROGRESS, 0) == 17
    assert MetricReader([{"Name": "loss", "Regex": "loss=(.*)"}]).read(PROGRESS, 0) == 17
    for name in ("spotproof:step", "step", "global_step"):
        reader = MetricReader([{"Name": name, "Regex": r"at (\d+)"}])
        assert reader.read("at 5", 0) == 5
        assert reader.read(PROGRESS, 0) is None
    several = [{"Name": name, "Regex": rf"{name}=(\d+)"} for name in ("global_step", "step", "spotproof:step")]
    assert MetricReader(several).read("global_step=1 step=2 spotproof:step=3", 0) == 3


def test_the_last_value_of_each_metric_is_kept():
    """Metrics are the first group of their expression, on any line; what is no finite number is not taken."""
    reader = MetricReader([{"Name": "loss", "Regex": r"loss=(\S+)"}, {"Name": "bare", "Regex": r"\d+\.\d+"}])
    for at, line in enumerate(["loss=2.5", "loss=-1e-3", "loss=nan", "loss=x", "loss=inf", "loss=-inf", "nothing"]):
        reader.read(line, at)

    assert (reader.last["loss"].value, reader.last["loss"].at) == (-0.001, 1)
    assert reader.last["bare"].value == 2.5


def test_named_groups_of_metrics_are_taken_in_both_spellings():
    """What follows ``(?<`` may be a name or look behind; an escaped parenthesis is none."""
    regexes = [r"a=(?<v>\d)", r"b=(?P<v>\d)", r"(?<=c=)\d", r"(?<!x)d=(\d)", r"\(?<e=(\d)"]
    reader = MetricReader([{"Name": str(index), "Regex": regex} for index, regex in enumerate(regexes)])
    reader.read("a=1 b=2 c=3 d=4 (<e=5", 0)
    assert [reader.last[str(index)].value for index in range(5)] == [1, 2, 3, 4, 5]


def test_artifacts_have_their_place():
    """Artifacts go below the job's name in the output path, with or without a slash at its end."""
    assert artifact_url("s3://b/o/", "job", "model.tar.gz") == "s3://b/o/job/output/model.tar.gz"
    assert artifact_url("s3://b/o", "job", "output.tar.gz") == "s3://b/o/job/output/output.tar.gz"


class _Shelf:
    def put_file(self, key, file):
        self.key, self.archive = key, file.read()


def test_a_tar_has_the_content_of_all_hosts_at_its_root(tmp_path):
    """Several hosts' files are merged, the last one's wins; links stay links; nothing makes no object."""
    first, second, shelf = tmp_path / "1", tmp_path / "2", _Shelf()
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "same").write_text(folder.name)
        (folder / "sub" / folder.name).write_text("x")
    (first / "link").symlink_to("same")
    assert upload_tree([first, second], shelf, "s3://b/k/model.tar.gz", tmp_path)
    assert shelf.key == "k/model.tar.gz"
    (tmp_path / "out.tar.gz").write_bytes(shelf.archive)
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        assert sorted(archive.getnames()) == ["link", "same", "sub", "sub/1", "sub/2"]
        assert archive.extractfile("same").read() == b"2"
        assert archive.getmember("link").issym()
    (tmp_path / "empty").mkdir()
    assert not upload_tree([tmp_path / "empty"], shelf, "s3://b/k", tmp_path)


@pytest.mark.parametrize("name", ["model", "output/data", "output"])
def test_a_link_in_the_place_of_a_folder_uploads_nothing(tmp_path, caplog, name):
    """Neither what it leads to nor what its parent's does, wherever that is; the other host's folder is uploaded."""
    first, second, elsewhere = tmp_path / "1", tmp_path / "2", tmp_path / "elsewhere"
    for folder in (
        first / "model",
        second / "model",
        first / "output/data",
        second / "output/data",
        elsewhere / "data",
    ):
        folder.mkdir(parents=True)
    shutil.rmtree(first / name)
    (first / name).symlink_to(elsewhere)

    for asked in ("model", "output/data"):
        is_away = asked.startswith(name)
        assert find_folders([first, second], asked) == [folder / asked for folder in (first, second)][is_away:]
    assert "has put a link in its place" in caplog.text


def test_links_in_a_circle_are_no_files(tmp_path):
    """Neither in the place of a folder nor in one."""
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml/model").symlink_to("model")
    assert find_folders([tmp_path / "ml"], "model") == []
    (tmp_path / "files").mkdir()
    (tmp_path / "files/round").symlink_to("round")
    assert upload_files([tmp_path / "files"], _Shelf(), "s3://b/k/") == 0


def test_a_log_keeps_lines_and_never_goes_back_in_time(tmp_path):
    """Output is cut into lines however it arrives; an unfinished line waits for its end or for the process's."""
    writer = LogWriter(tmp_path / "job" / "algo-1-0.log")
    assert writer.write(b"one\ntw", 10.0) == ["one"]
    assert writer.write(b"o\r\n\n\xffthree\n", 9.0) == ["two", "\ufffdthree"]
    assert writer.end_line(11.0) == []
    writer.write(b"rest", 11.0)
    assert writer.end_line(12.0) == ["rest"]
    writer.close()

    page = LogReader(tmp_path).events("job/algo-1-0", is_from_head=True)
    assert [(event["timestamp"], event["message"]) for event in page["events"]] == [
        (10000, "one"),
        (10000, "two"),
        (10000, "\ufffdthree"),
        (12000, "rest"),
    ]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    """A line above the size of an event is cut into several."""
    writer = LogWriter(tmp_path / "job" / "algo-1-0.log")
    lines = writer.write(b"x" * 600_000, 1.0)
    lines += writer.write(b"y" * 600_000 + b"\n", 1.0)
    writer.close()

    assert max(map(len, lines)) <= 262144
    assert "".join(lines) == "x" * 600_000 + "y" * 600_000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pages_give_every_event_once(tmp_path_factory, data):
    """Walking forward from the head, or backward from the tail, in pages of any size gives every event exactly once."""
    folder = tmp_path_factory.mktemp("logs")
    messages = [f"line {index}" for index in range(data.draw(st.integers(0, 30)))]
    writer = LogWriter(folder / "job" / "s.log")
    for index, message in enumerate(messages):
        writer.write(message.encode() + b"\n", index // 3)
    reader, limit = LogReader(folder), data.draw(st.integers(1, 12))
    for is_from_head in (True, False):
        found, token, name = [], None, "nextForwardToken" if is_from_head else "nextBackwardToken"
        while True:
            page = reader.events("job/s", token=token, limit=limit, is_from_head=is_from_head)
            texts = [event["message"] for event in page["events"]]
            found = found + texts if is_from_head else texts + found
            if page[name] == token:
                break
            token = page[name]
        assert found == messages
        writer.write(b"", 100)
    more = reader.events("job/s", is_from_head=True)
    assert reader.events("job/s", token=more["nextForwardToken"])["nextForwardToken"] == more["nextForwardToken"]
    writer.write(b"later\n", 200)
    assert [e["message"] for e in reader.events("job/s", token=more["nextForwardToken"])["events"]] == ["later"]
    start = data.draw(st.integers(0, 12)) * 1000
    since = reader.events("job/s", start_ms=start, is_from_head=True)["events"]
    assert [event["message"] for event in since] == [m for i, m in enumerate(messages) if i // 3 * 1000 >= start] + [
        "later"
    ]
    writer.close()


@pytest.mark.parametrize("stream", ["../x", "a/../../b", "/etc/passwd", "a/b/c", "a", ""])
def test_stream_names_do_not_leave_the_folder(tmp_path, stream):
    """A stream's name that is a path elsewhere is refused."""
    with pytest.raises(ValueError, match="not a stream"):
        LogReader(tmp_path).events(stream)


def test_a_torn_last_line_is_not_shown(tmp_path):
    """What a killed server left of a line is not an event."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job/s.log").write_bytes(b"1 whole\n2 to")
    events = LogReader(tmp_path).events("job/s", is_from_head=True)["events"]
    assert [event["message"] for event in events] == ["whole"]


def test_a_process_is_known_by_its_start(tmp_path):
    """The start time tells a process from another of its number; a process that is not has none."""
    assert process_start_time(os.getpid()) == process_start_time(os.getpid())
    assert process_start_time(2**22 + 1) is None


def test_what_a_job_made_unwritable_is_removed(tmp_path):
    """A directory without permissions does not survive."""
    locked = tmp_path / "job" / "locked"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0o000)
    remove_tree(tmp_path / "job")
    remove_tree(tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_removing_changes_nothing_outside(tmp_path, monkeypatch):
    """A link that resists is removed without touching what it leads to."""
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    outside.chmod(0o600)
    (tmp_path / "job").mkdir()
    (tmp_path / "job/link").symlink_to(outside)
    unlink, calls = os.unlink, []

    def resist(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise PermissionError("as in a directory that is not writable")
        unlink(*args, **kwargs)

    monkeypatch.setattr(os, "unlink", resist)
    remove_tree(tmp_path / "job")
    assert len(calls) == 2
    assert not (tmp_path / "job").exists()
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("theirs", 0o600)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_request_breaks_the_platform(tmp_path_factory, data):
    """Whatever is put anywhere into a request, it is accepted or refused with a code; nothing else is raised."""
    folder = tmp_path_factory.getbasetemp()
    request = {
        "TrainingJobName": "job",
        "RoleArn": "arn:aws:iam::123456789012:role/Training",
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "a", "Regex": "b"}],
            "ContainerEntrypoint": ["x"],
        },
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 2},
        "EnableManagedSpotTraining": True,
        "CheckpointConfig": {"S3Uri": "s3://bucket/ck", "LocalPath": "/opt/ml/checkpoints"},
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data"}},
            }
        ],
        "HyperParameters": {"a": "b"},
        "Environment": {"A": "b"},
    }
    place = request
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(json_values)
        break
    try:
        cleaned = validate("sagemaker", "CreateTrainingJob", request)
        shelf = ImageShelf({"image": Image(folder, ["true"])}, None)
        plan = parse_request(cleaned, shelf.find, region="us-east-1", spot_price_factor=0.3)
    except WireError:
        return
    assert plan.command
    assert plan.rules.num_hosts >= 1
