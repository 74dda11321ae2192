"""What the tests of the SageMaker SDKs share: a server as a user starts it, and clients in other environments."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).parents[2]
BUCKET = "sagemaker-us-east-1-123456789012"


class Platform:
    """A server as a user starts it, and clients that have nothing but what ``spotproof env`` gives them."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self._python = folder, python
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
        self.environment = {**kept, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "200", "HOME": str(folder)}

    def spotproof(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "spotproof", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self.environment, cwd=self.folder, **options
        )

    def start_client(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        path = str(ROOT / "tests/sdk" / script)
        return self.spotproof("env", "--", str(self._python), path, *arguments, stderr=subprocess.STDOUT)

    def s3(self) -> Any:
        """Return boto3's client with what ``serve --print-env`` prints."""
        lines, _ = self.spotproof("serve", "--print-env").communicate(timeout=60)
        found = dict(re.findall(r"^export (\w+)=(\S*)$", lines, re.MULTILINE))
        keys = found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]
        return boto3.client("s3", found["AWS_REGION"], None, True, None, found["AWS_ENDPOINT_URL"], *keys)

    @contextmanager
    def serving(self, *options: str) -> Iterator[None]:
        """Run ``spotproof serve`` with these options."""
        with self.spotproof("serve", *options) as server:
            assert server.stdout is not None
            assert "ready at" in server.stdout.readline()
            try:
                yield
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(timeout=60)

    def run_clients(self, *commands: tuple[str, ...]) -> list[str]:
        """Return what the scripts print, which run side by side and all succeed."""
        processes = [self.start_client(*command) for command in commands]
        try:
            printed = [process.communicate(timeout=900)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        for process, text in zip(processes, printed, strict=True):
            assert process.returncode == 0, text
        return printed

    def logs(self, job: str) -> str:
        """Return what the job has printed."""
        return "".join(path.read_text() for path in self.folder.rglob(f"logs/{job}/*.log"))


def described(text: str) -> list[dict[str, Any]]:
    """Return the descriptions that a script has printed."""
    return [json.loads(line.removeprefix("DESCRIBED ")) for line in text.splitlines() if line.startswith("DESCRIBED ")]
