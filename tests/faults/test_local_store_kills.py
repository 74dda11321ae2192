"""SIGKILL of the server before and after each write of its store: what was true of the jobs stays true."""

import itertools
import shutil
import time
import urllib.error

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_rig import ROLE, statuses, wait_no_process_with
from store_killer import PATIENCE_SECONDS, MortalServer

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock tells of two attempts at once")

# The ledger has a line for each start, and tells of a start while another attempt still lives.
SCRIPT = """
exec 9>>"$LEDGER.lock"
flock -n 9 || echo TWICE >>"$LEDGER"
echo start >>"$LEDGER"
case $KIND in
    failed) exit 3 ;;
    stopped) exec sleep 600 ;;
    spot)
        echo "[spotproof] attempt=0 epoch=0 step=1"
        test $(grep -c start "$LEDGER") -gt 1 || exec sleep 600 ;;
esac
echo made >"$SAGEMAKER_BASE_DIR/model/result"
"""
ENDS = {"quick": "Completed", "failed": "Failed", "stopped": "Stopped", "spot": "Completed", "late": "Completed"}
FOLLOWERS = {
    "Starting": {"Downloading", "Stopping"},
    "Downloading": {"Training", "Interrupted", "Stopping"},
    "Training": {"Interrupted", "Uploading", "Stopping", "Failed"},
    "Interrupted": {"Starting", "Stopping"},
    "Uploading": {"Completed", "Failed", "Stopped", "Interrupted"},
    "Stopping": {"Uploading", "Stopped"},
}
NUM_WRITES = 34
"""Of an undisturbed run, at least."""


class Story:
    """Five jobs on two hosts: one completes, one fails, one is changed and stopped, one is reclaimed, one waits."""

    def __init__(self, folder, s3_server, kills):
        (folder / "image").mkdir()
        (folder / "image/script.sh").write_text(SCRIPT)
        self._ledgers = folder / "ledgers"
        self._ledgers.mkdir()
        self.bucket = f"kills-{time.time_ns()}"
        keys = s3_server.access_key, s3_server.secret_key
        self._s3 = boto3.client("s3", "us-east-1", None, True, None, s3_server.url, *keys)
        self._s3.create_bucket(Bucket=self.bucket)
        self.server = MortalServer(folder, s3_server, kills)

    def close(self):
        mark = self.server.close()
        self._s3.close()
        wait_no_process_with(mark)

    def create(self, name):
        is_spot = name == "spot"
        stopping = {"MaxRuntimeInSeconds": 900, **({"MaxWaitTimeInSeconds": 1000} if is_spot else {})}
        request = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out/"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": is_spot,
            "Environment": {"LEDGER": str(self._ledgers / name), "KIND": name},
        }
        self.ask("CreateTrainingJob", "ResourceInUse", **request)

    def ask(self, operation, done_already, **body):
        """Send a request; one that a server died of may have been done, and then the next one says *done_already*."""
        try:
            self.server.call(operation, **body)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            assert self.server.num_deaths, text
            assert done_already in text

    def describe(self, name):
        return self.server.call("DescribeTrainingJob", TrainingJobName=name)[0]

    def wait(self, name, *wanted):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (description := self.describe(name))["SecondaryStatus"] not in wanted:
            assert time.monotonic() < deadline, description
            time.sleep(0.01)
        return description

    def starts(self, name):
        path = self._ledgers / name
        return path.read_text().split() if path.exists() else []

    def tell(self):
        """Let it happen; return the descriptions at its end."""
        for name in ENDS:
            self.create(name)
        self.wait("stopped", "Training", "Stopping", "Stopped")
        profiler = {"ProfilingIntervalInMilliseconds": 500}
        self.ask("UpdateTrainingJob", "", TrainingJobName="stopped", ProfilerConfig=profiler)
        self.ask("StopTrainingJob", "status Stop", TrainingJobName="stopped")
        ended = {name: self.wait(name, "Completed", "Failed", "Stopped") for name in ENDS}
        self.ask("DeleteTrainingJob", "not found", TrainingJobName="failed")
        return ended

    def check(self, ended):
        listed = self.server.call("ListTrainingJobs", MaxResults=100)[0]["TrainingJobSummaries"]
        assert {item["TrainingJobName"] for item in listed} == set(ENDS) - {"failed"}
        for name, description in ended.items():
            names, starts = statuses(description), self.starts(name)
            assert description["TrainingJobStatus"] == ENDS[name], description
            for before, after in itertools.pairwise(names):
                assert after in FOLLOWERS[before], names
            assert description["BillableTimeInSeconds"] <= description["TrainingTimeInSeconds"]
            assert "TWICE" not in starts, f"two attempts of {name} lived at once"
            assert starts.count("start") <= names.count("Training"), f"{name} ran more often than anybody was told"
            assert names.count("Interrupted") <= self.server.num_deaths + (name == "spot")
            answer = self._s3.list_objects_v2(Bucket=self.bucket, Prefix=f"out/{name}/")
            keys = [item["Key"].rpartition("/")[2] for item in answer.get("Contents", [])]
            assert keys == (["model.tar.gz"] if ENDS[name] == "Completed" else []), name


def run(folder, s3_server, *kills):
    """Tell the story with those deaths; return how many there were, and how often the last server wrote."""
    story = Story(folder, s3_server, kills)
    try:
        story.check(story.tell())
    finally:
        story.close()
    return story.server.num_deaths, story.server.num_writes


def test_the_story_has_the_writes_that_are_counted_on(tmp_path, s3_server):
    """Undisturbed, nothing dies, and the kills below have something to hit."""
    num_deaths, num_writes = run(tmp_path, s3_server)

    assert num_deaths == 0
    assert num_writes >= NUM_WRITES


def _kills():
    for kill in itertools.product(range(NUM_WRITES), ("before", "after")):
        is_quick = kill in ((3, "after"), (17, "before"))
        yield pytest.param(*kill, marks=[] if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("number", "moment"), _kills())
def test_killed_at_a_write(tmp_path, s3_server, number, moment):
    """No job is lost, none runs twice at a time, each ends as it should, and statuses keep their order."""
    assert run(tmp_path, s3_server, (number, moment))[0] == 1


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.integers(0, NUM_WRITES), st.sampled_from(["before", "after"])), max_size=5))
def test_killed_again_and_again(tmp_path_factory, s3_server, kills):
    """The server that comes back is killed, too, and the next one, while they find the jobs again and later."""
    run(tmp_path_factory.mktemp("kills"), s3_server, *kills)
