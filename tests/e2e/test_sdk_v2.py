"""The SageMaker Python SDK v2, unmodified, in an environment of its own, against ``spotproof serve``."""

import json
import re
import sys
from collections.abc import Iterator

import pytest
from sdk_platform import BUCKET, ROOT, Platform, described

PYTHON = ROOT / ".venv-sdkv2/bin/python"
IMAGE = f"sagemaker-tutorial={ROOT / 'examples/cifar10'}:python -m spotproof.container train.py"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="no SDK v2: make .venv-sdkv2/.installed"),
    pytest.mark.timeout(1000),  # the SDK looks for the end of a job every 30 seconds, whatever the job takes
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, str, str]]:
    """What the two scripts print: the article's call, and script mode. Side by side, for the SDK mostly waits."""
    platform = Platform(tmp_path_factory.mktemp("sdkv2"), PYTHON)
    (platform.folder / "base").mkdir()
    source = platform.folder / "source"
    source.mkdir()
    (source / "train.py").write_text(
        "import json, os, sys, part\n"
        "print('ARGV', json.dumps(sys.argv), os.getcwd(), part.TEXT)\n"
        "print('loss=0.5'); print('loss=0.25')\n"
        "open(os.environ['SM_MODEL_DIR'] + '/model.txt', 'w').write(part.TEXT)\n"
    )
    (source / "part.py").write_text("TEXT = 'part'\n")
    (source / "requirements.txt").write_text("--no-index\nnumpy\n")
    (source / "fail.py").write_text("raise RuntimeError('no luck')\n")
    data = platform.folder / "data"
    data.mkdir()
    (data / "some.txt").write_text("data")
    base = f"base-image={platform.folder / 'base'}:python -m spotproof.container"
    with platform.serving("--image", IMAGE, "--image", base, "--reclaim", "step:18"):
        printed = platform.run_clients(("article.py", str(data), BUCKET), ("script_mode.py", str(source), BUCKET))
        yield platform, *printed


def test_the_articles_call(outputs):
    """``fit`` prints statuses, logs of all attempts and savings; the second job goes on from the first one's end."""
    platform, text, _ = outputs
    first, _, second = text.partition("DESCRIBED")
    second = second.partition("\n")[2]

    assert "Training - Training image download completed. Training in progress." in first
    assert "Interrupted - " in first
    assert "Completed - Training job completed" in first
    assert next(int(step) for step in re.findall(r"attempt=0 epoch=\d+ step=(\d+)", first)) <= 4
    assert "attempt=1" in first
    assert "step=40" in first
    assert re.search(r"^Training seconds: \d+$", first, re.MULTILINE)
    assert re.search(r"^Billable seconds: \d+$", first, re.MULTILINE)
    assert re.search(r"^Managed Spot Training savings: \d+\.\d%$", first, re.MULTILINE)

    steps = [int(step) for step in re.findall(r"epoch=\d+ step=(\d+)", second)]
    assert min(steps) == 40
    assert max(steps) == 56
    assert "Managed Spot Training savings" in second

    for description in described(text):
        assert description["TrainingJobStatus"] == "Completed"
        assert description["RoleArn"] == "arn:aws:iam::123456789012:role/SageMakerTraining"
        assert description["RetryStrategy"] == {"MaximumRetryAttempts": 3}
        bucket, _, key = description["model"].removeprefix("s3://").partition("/")
        assert platform.s3().head_object(Bucket=bucket, Key=key)["ContentLength"] > 1000


JOB = f"""\
name: article
image_uri: sagemaker-tutorial
role: arn:aws:iam::123456789012:role/SageMakerTraining
instance_type: ml.m5.large
use_spot_instances: true
max_run: 3600
max_wait: 7200
max_retry_attempts: 3
checkpoint_s3_uri: s3://{BUCKET}/file/checkpoints
output_path: s3://{BUCKET}/file/output
inputs: {{training: data}}
hyperparameters:
  data: DigitsDataModule
  data.batch_size: 32
  model.width: 4
  optimizer: Adam
  optimizer.lr: 0.001
  trainer.limit_train_batches: 8
  trainer.limit_val_batches: 2
  trainer.max_epochs: 5
  spot.every_n_steps: 4
environment: {{OMP_NUM_THREADS: "1"}}
"""


@pytest.mark.slow
def test_the_file_does_what_the_call_does(outputs):
    """`launch job.yaml`, and once more with seven epochs: the same steps, and bit for bit the checkpoint of the SDK's
    two calls."""
    platform, text, _ = outputs
    (platform.folder / "job.yaml").write_text(JOB)

    def run(*arguments):
        with platform.spotproof(*arguments) as process:
            printed = process.communicate(timeout=600)[0]
        return process.returncode, printed

    reports = []
    for more in ([], ["--set", "hyperparameters.trainer.max_epochs=7"]):
        code, printed = run("launch", "job.yaml", "--local", "--wait", "--json", *more)
        assert code == 0, printed
        reports.append(json.loads(printed))
    first, second = reports

    assert (first["num_interruptions"], first["final_step"]) == (1, 40)
    assert (second["attempts"][0]["resumed_from_step"], second["final_step"]) == (40, 56)
    assert described(text)[1]["HyperParameters"]["trainer.max_epochs"] == "7"
    places = [f"s3://{BUCKET}/checkpoints@56", f"s3://{BUCKET}/file/checkpoints@56"]
    code, printed = run("env", "--", sys.executable, "-m", "spotproof", "checkpoints", "diff", *places)
    assert code == 0, printed


def test_script_mode(outputs):
    """The uploaded program runs with its hyperparameters, the job's results go to the default bucket."""
    platform, _, text = outputs
    plain, pytorch, failed = described(text)

    assert plain["TrainingJobStatus"] == pytorch["TrainingJobStatus"] == "Completed"
    assert plain["ModelArtifacts"]["S3ModelArtifacts"].startswith(f"s3://{BUCKET}/")
    argv = ["train.py", "--flag", "True", "-l", "[1, 2]", "--lr", "0.1", "--name", "abc"]
    assert f"ARGV {json.dumps(argv)} " in platform.logs(plain["TrainingJobName"])
    assert f"ARGV {json.dumps(['train.py', '--name', 'x y'])} " in platform.logs(pytorch["TrainingJobName"])
    assert failed["TrainingJobStatus"] == "Failed"


def test_a_job_is_found_again(outputs):
    """``attach`` has its model and its tags, ``training_job_analytics`` the mean of what it printed."""
    _, _, text = outputs
    (line,) = [line for line in text.splitlines() if line.startswith("ATTACHED ")]
    found = json.loads(line.removeprefix("ATTACHED "))

    assert found["model"] == described(text)[0]["ModelArtifacts"]["S3ModelArtifacts"]
    assert found["tags"] == [{"Key": "team", "Value": "vision"}]
    assert {item["metric_name"] for item in found["metrics"]} == {"loss"}
    assert sum(item["value"] for item in found["metrics"]) in (0.375, 0.75)  # in one minute, or at its turn


def test_a_failure_is_raised_with_its_reason(outputs):
    """The SDK raises UnexpectedStatusException with what the program said."""
    _, _, text = outputs

    assert "FAILED Error for Training job base-image-" in text
    assert "AlgorithmError: ExecuteUserScriptError" in text
    assert "RuntimeError: no luck" in text
