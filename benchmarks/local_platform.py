"""How does the local SageMaker bear many jobs, many requests and much checkpoint traffic?

    python benchmarks/local_platform.py [--quick] [--json FILE] [--jobs 500] [--gigabytes 5] [--dir FOLDER]

``spotproof serve``, with its S3 server. First a job at a time, on an idle server: from the call of CreateTrainingJob to
the first instruction of the job's program, whose image is a folder that is there already. Then eight client processes
create the jobs, each as fast as it is answered, while another process lists and describes; the jobs run a program that
ends at once. A third request, which asks the server for nothing, shows what of an answer's time is the way to it and
back: clients, server and jobs share the machine's cores. Then the same number again, to see what ended jobs leave in
the server's memory. Last, checkpoint-like traffic to S3: objects of 64 MB are put, read and deleted.

Requests are written by hand, because what a client library computes is not the server's. There is no rival: SDK local
mode answers no list and no describe of several jobs, and needs Docker; it takes about 13 s from ``fit`` to the end of
a job of the same kind.
"""

import argparse
import json
import multiprocessing
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from common import Goal, Result, add_options, finish

from spotproof.storage._s3 import S3Storage

NUM_CLIENTS = 8
OBJECT_BYTES = 64 * 2**20
NOTHING = "GET /health"


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "image").mkdir()
        self.state = folder / "state"
        images = [f"--image=quick={folder}/image:true", f"--image=clock={folder}/image:date +%s.%N"]
        command = [sys.executable, "-m", "spotproof", "serve", "--port=0", f"--state-dir={self.state}", *images]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("Local SageMaker ready")
        known = json.loads((self.state / "server.json").read_text())
        self.url, self.environment = known["url"], known["environment"]
        records = [json.loads(path.read_text()) for path in (self.state / "processes").glob("*.json")]
        (self._s3_supervisor,) = [record["pid"] for record in records if record["what"] == "s3"]
        self.make_bucket("bench")

    def make_bucket(self, name: str) -> None:
        """Make a bucket through the one endpoint."""
        import boto3

        keys = self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"]
        client = boto3.client("s3", "us-east-1", None, True, None, self.environment["AWS_ENDPOINT_URL_S3"], *keys)
        client.create_bucket(Bucket=name)
        client.close()

    def megabytes(self) -> tuple[float, float]:
        """Return the memory of the server and of its S3 server."""
        children = Path(f"/proc/{self._s3_supervisor}/task/{self._s3_supervisor}/children").read_text().split()
        return resident(self._process.pid), sum(resident(int(child)) for child in children)

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def resident(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def call(url: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send one request as AWS's clients do."""
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    scope = "Credential=bench/20260101/us-east-1/sagemaker/aws4_request"
    headers["Authorization"] = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.loads(answer.read() or b"{}"))


def build_job(name: str, image: str) -> dict[str, Any]:
    """Return a small request."""
    return {
        "TrainingJobName": name,
        "RoleArn": "arn:aws:iam::123456789012:role/Training",
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://bench/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "HyperParameters": {f"parameter-{index}": "value" for index in range(20)},
    }


def create(url: str, names: list[str], results: Any) -> None:
    """Create jobs one after the other; report the seconds of each call."""
    seconds = []
    for name in names:
        began = time.perf_counter()
        call(url, "CreateTrainingJob", build_job(name, "quick"))
        seconds.append(time.perf_counter() - began)
    results.put(seconds)


def watch(url: str, first: str, ended: Any, results: Any) -> None:
    """List and describe until told to end; report the seconds of each call."""
    seconds: dict[str, list[float]] = {"ListTrainingJobs": [], "DescribeTrainingJob": [], NOTHING: []}
    bodies: dict[str, dict[str, Any]] = {
        "ListTrainingJobs": {"MaxResults": 100, "SortOrder": "Descending"},
        "DescribeTrainingJob": {"TrainingJobName": first},
    }
    while not ended.is_set():
        for operation, body in bodies.items():
            began = time.perf_counter()
            answer = call(url, operation, body)
            seconds[operation].append(time.perf_counter() - began)
            if operation == "ListTrainingJobs" and answer["TrainingJobSummaries"]:
                bodies["DescribeTrainingJob"] = {
                    "TrainingJobName": answer["TrainingJobSummaries"][0]["TrainingJobName"]
                }
        began = time.perf_counter()
        with urllib.request.urlopen(f"{url}/health", timeout=120) as answer_of_nothing:
            answer_of_nothing.read()
        seconds[NOTHING].append(time.perf_counter() - began)
        time.sleep(0.01)
    results.put(seconds)


def statuses(url: str) -> dict[str, str]:
    """Return the status of every job."""
    found: dict[str, str] = {}
    token: dict[str, str] = {}
    while True:
        page = call(url, "ListTrainingJobs", {"MaxResults": 100, **token})
        found |= {item["TrainingJobName"]: item["TrainingJobStatus"] for item in page["TrainingJobSummaries"]}
        if "NextToken" not in page:
            return found
        token = {"NextToken": page["NextToken"]}


def wait_ended(url: str, names: list[str]) -> int:
    """Return how many of the jobs did not end Completed, once all have ended."""
    while True:
        found = statuses(url)
        if all(found.get(name) not in ("InProgress", "Stopping") for name in names):
            return sum(found.get(name) != "Completed" for name in names)
        time.sleep(0.2)


def measure_start(server: Server, times: int) -> list[float]:
    """Return the seconds from the call to the program's first instruction, of each job."""
    seconds = []
    for index in range(times):
        name = f"start-{index}"
        began = time.time()
        call(server.url, "CreateTrainingJob", build_job(name, "clock"))
        wait_ended(server.url, [name])
        (log,) = (server.state / "logs" / name).glob("*.log")
        seconds.append(float(log.read_text().split()[1]) - began)
    return seconds


def run_many(server: Server, prefix: str, num_jobs: int) -> tuple[int, float, dict[str, list[float]]]:
    """Return the jobs lost, the seconds of all together, and the seconds of each call by operation."""
    names = [f"{prefix}-{index}" for index in range(num_jobs)]
    context = multiprocessing.get_context("fork")
    created, watched, ended = context.Queue(), context.Queue(), context.Event()
    clients = [
        context.Process(target=create, args=(server.url, names[index::NUM_CLIENTS], created))
        for index in range(NUM_CLIENTS)
    ]
    call(server.url, "CreateTrainingJob", build_job(f"{prefix}-first", "quick"))
    watcher = context.Process(target=watch, args=(server.url, f"{prefix}-first", ended, watched))
    began = time.perf_counter()
    for process in (watcher, *clients):
        process.start()
    seconds = {"CreateTrainingJob": [second for _ in clients for second in created.get()]}
    num_lost = wait_ended(server.url, names)
    total = time.perf_counter() - began
    ended.set()
    seconds |= watched.get()
    for process in (watcher, *clients):
        process.join()
    return num_lost, total, seconds


def send_traffic(server: Server, gigabytes: float) -> tuple[float, float]:
    """Put, read and delete objects; return the most memory of the server and of S3, in MB."""
    storage = S3Storage("bench", "traffic", environment={**server.environment, "AWS_REGION": "us-east-1"})
    content = bytearray(OBJECT_BYTES)
    most = server.megabytes()
    for index in range(max(1, round(gigabytes * 2**30 / OBJECT_BYTES))):
        content[:8] = index.to_bytes(8, "little")
        storage.put(f"object-{index % 4}", [content])
        for _ in storage.stream(f"object-{index % 4}"):
            pass
        if index % 4 == 3:
            storage.delete(f"object-{(index + 1) % 4}")
        now = server.megabytes()
        most = max(most[0], now[0]), max(most[1], now[1])
    return most


def percentile(values: list[float], share: float) -> float:
    """Return a percentile in ms."""
    return 1000 * statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--gigabytes", type=float)
    args = parser.parse_args()
    num_jobs = args.jobs or (24 if args.quick else 500)
    gigabytes = args.gigabytes or (0.25 if args.quick else 5.0)
    args.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=args.dir)).absolute()
    server = Server(folder)
    try:
        memory = {"at the start": server.megabytes()}
        starts = measure_start(server, 3 if args.quick else 15)
        num_lost, total, seconds = run_many(server, "one", num_jobs)
        memory[f"after {num_jobs} jobs"] = half = server.megabytes()
        more_lost, _, _ = run_many(server, "two", num_jobs)
        memory[f"after {2 * num_jobs} jobs"] = full = server.megabytes()
        memory[f"most during {gigabytes:g} GB put and read"] = traffic = send_traffic(server, gigabytes)
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
    result = Result(
        "local_platform",
        "The local SageMaker under many jobs",
        f"{num_jobs} jobs of {NUM_CLIENTS} client processes in {total:.0f} s, as many again; {gigabytes:g} GB to S3",
        ["", "median", "p99", "most", "calls"],
        [
            [
                name,
                f"{percentile(values, 0.5):.1f} ms",
                f"{percentile(values, 0.99):.1f} ms",
                f"{1000 * max(values):.1f} ms",
                str(len(values)),
            ]
            for name, values in seconds.items()
        ],
        [
            Goal(what=f"jobs lost of {2 * num_jobs}", measured=num_lost + more_lost, limit=0, unit="jobs", digits=0),
            *(
                Goal(what=f"p99 of {name}", measured=percentile(seconds[name], 0.99), limit=50, unit="ms", digits=0)
                for name in ("ListTrainingJobs", "DescribeTrainingJob")
            ),
            Goal(what="create → first process, median", measured=statistics.median(starts), limit=1, unit="s"),
            Goal(what=f"memory after {2 * num_jobs} jobs to after {num_jobs}", measured=full[0] / half[0], limit=1.1),
            Goal(what="memory of the S3 server", measured=traffic[1], limit=1500, unit="MB", digits=0),
        ],
        [f"{when}: server {here:.0f} MB, S3 server {s3:.0f} MB." for when, (here, s3) in memory.items()],
    )
    finish(result, args.json)


if __name__ == "__main__":
    main()
