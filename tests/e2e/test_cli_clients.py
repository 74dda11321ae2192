"""``serve --print-env`` and ``env``: what they tell a shell is right before the server runs, and while it does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_serve import Shell

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
BUCKET = "sagemaker-eu-west-1-123456789012"
USE = f"""
import boto3
assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
assert boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
assert boto3.client("logs").describe_log_groups()["logGroups"] == []
boto3.client("s3").put_object(Bucket="{BUCKET}", Key="key", Body=b"content")
print("USED")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.environment.update(AWS_REGION="eu-west-1", HOME=str(tmp_path))
    return shell


def evaluated(shell: Shell, *options: str, then: str = SHOW) -> str:
    """Return what a Python program prints in a shell that has evaluated the export lines."""
    spotproof = f"{sys.executable} -m spotproof serve --print-env {' '.join(options)}"
    script = f'lines=$({spotproof}) || exit 1; eval "$lines"; exec {sys.executable} -c "$PROGRAM"'
    result = subprocess.run(
        ["/bin/sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**shell.environment, "PROGRAM": then},
        cwd=shell.folder,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_lines_are_right_before_the_server_runs_and_while_it_does(shell):
    """A server that is started with the same options later has the port and the keys that were printed before."""
    options = ("--state-dir", str(shell.folder / "a state's folder"))
    quoted = ("--state-dir", '"a state\'s folder"')
    before = json.loads(evaluated(shell, *quoted))
    shell.environment.update(AWS_PROFILE="no-such-profile", AWS_SESSION_TOKEN="old", AWS_ENDPOINT_URL_S3="http://x")
    with shell.start("serve", *options) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert f"ready at {before['AWS_ENDPOINT_URL']} " in line
            port = before["AWS_ENDPOINT_URL"].rpartition(":")[2]

            during = json.loads(evaluated(shell, *quoted))
            by_port = json.loads(evaluated(shell, "--port", port))
            for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                assert before[name] == during[name] == by_port[name]
            assert "AWS_PROFILE" not in during
            assert not during["AWS_SESSION_TOKEN"]
            assert evaluated(shell, "--port", port, then=USE) == "USED\n"

            used = shell.run("env", "--port", port, "--", sys.executable, "-c", USE)
            assert used.stdout == "USED\n", used.stderr
            refused = shell.run("serve", "--print-env", *options, "--port", "9")
            assert refused.returncode == 2
            assert before["AWS_ENDPOINT_URL"] in refused.stderr
        finally:
            server.send_signal(signal.SIGTERM)
            rest = server.stdout.read() if server.stdout else ""
            server.wait(timeout=60)
    assert rest == "", "one line, and no more"


def test_what_the_lines_say(shell):
    """Everything that clients of any kind need, quoted for the shell; keys for the owner's eyes only."""
    shell.environment.update(http_proxy="http://proxy:1", NO_PROXY="example.org", AWS_DEFAULT_REGION="us-west-2")
    found = json.loads(evaluated(shell))

    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"
    assert found["SAGEMAKER_SUPPRESS_V2_WARNING"] == "1"
    assert found["NO_PROXY"] == found["no_proxy"] == "example.org,127.0.0.1"
    config = Path(found["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text()
    assert f"DefaultS3Bucket: {BUCKET}" in config
    assert "TelemetryOptOut: true" in config
    keys = shell.folder / "state/spotproof/keys.json"
    assert keys.stat().st_mode & 0o077 == 0
    assert json.loads(keys.read_text())["secret"] == found["AWS_SECRET_ACCESS_KEY"]
    assert shell.json("serve", "--print-env")["AWS_ENDPOINT_URL"] == found["AWS_ENDPOINT_URL"]
    other = json.loads(evaluated(shell, "--state-dir", "other"))
    assert other["AWS_ENDPOINT_URL"] != found["AWS_ENDPOINT_URL"]
    assert other["AWS_SECRET_ACCESS_KEY"] == found["AWS_SECRET_ACCESS_KEY"]


def test_env_without_a_server_says_how_to_start_one(shell):
    """Nothing is run, and the words repeat the options that were given."""
    result = shell.run("env", "--state-dir", "there", "--", "touch", "made")

    assert result.returncode == 6
    assert "spotproof serve --state-dir there" in result.stderr
    assert not (shell.folder / "made").exists()
    assert shell.run("serve", "--print-env", "--port", "0").returncode == 2


def test_env_passes_on_exit_code_and_arguments(shell):
    """The command takes the place of spotproof: its exit code, its arguments as they are, its stdin."""
    with shell.start("serve", "--port", "0") as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            program = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
            result = subprocess.run(
                [sys.executable, "-m", "spotproof", "env", "--", sys.executable, "-c", program, "--port", "x y", "--"],
                input="input",
                capture_output=True,
                text=True,
                timeout=60,
                env=shell.environment,
                cwd=shell.folder,
            )
            assert result.returncode == 7
            assert result.stdout == "['--port', 'x y', '--'] input\n"
            missing = shell.run("env", "no-such-command")
            assert missing.returncode == 2
            assert "'no-such-command' can't be run" in missing.stderr
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)


def test_images_from_a_file(shell):
    """``--image FILE`` names many images, in folders beside it; what is wrong with it is said before the start."""
    folder = shell.folder / "images"
    (folder / "src").mkdir(parents=True)
    good = folder / "good.yaml"
    good.write_text("one: {folder: src, command: python train.py}\ntwo: {folder: src, command: [python, train.py]}\n")
    (folder / "bad.yaml").write_text("one: {folder: src}\n")
    (folder / "empty.yaml").write_text("")
    (folder / "gone.yaml").write_text("one: {folder: nowhere, command: x}\n")

    for name, words in (("bad", "can't be read"), ("empty", "names no images"), ("gone", "is not a directory")):
        refused = shell.run("serve", "--port", "0", "--image", str(folder / f"{name}.yaml"))
        assert refused.returncode == 2, refused.stderr
        assert words in refused.stderr
    from spotproof.local import read_images

    images = read_images(good)
    assert set(images) == {"one", "two"}
    assert images["one"].command == images["two"].command == ["python", "train.py"]
    assert os.path.samefile(images["one"].folder, folder / "src")
