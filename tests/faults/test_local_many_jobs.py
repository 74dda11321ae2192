"""Many small jobs at once: none is lost, and what has ended weighs nothing."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_rig import open_rig

from spotproof.local import Image


@pytest.mark.parametrize("num_jobs", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_none_is_lost_and_nothing_is_left(tmp_path, s3_server, monkeypatch, num_jobs):
    """Jobs of eight clients at once: each completes; no thread, file or attempt stays, and never more run than may."""
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain", capacity=4) as rig:
        rig.platform._images["quick"] = Image(tmp_path / "images", ["true"])
        (tmp_path / "images").mkdir()
        rig.sagemaker.create_training_job(**rig.request("warm", "quick", spot=False))
        rig.wait("warm")
        files, most = len(os.listdir("/proc/self/fd")), 0

        def create(client):
            for index in range(client, num_jobs, 8):
                rig.sagemaker.create_training_job(**rig.request(f"job-{index}", "quick", spot=index % 2 == 0))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, range(8)))
        deadline = time.monotonic() + 60 + num_jobs * 3
        while rig.platform._jobs._live:
            most = max(most, rig.platform._jobs.capacity.num_used)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        names, pages = {}, rig.sagemaker.get_paginator("list_training_jobs")
        for page in pages.paginate(MaxResults=100):
            names |= {item["TrainingJobName"]: item["TrainingJobStatus"] for item in page["TrainingJobSummaries"]}
        assert names == {"warm": "Completed"} | {f"job-{index}": "Completed" for index in range(num_jobs)}
        assert most <= 4
        left = [t.name for t in threading.enumerate() if t.name.startswith(("job-", "watch job", "sync"))]
        assert left == []
        assert len(os.listdir("/proc/self/fd")) <= files + 20  # connections of the clients, to us and to S3
        assert not any((rig.platform.state_dir / "jobs").iterdir())
        assert rig.describe("job-7")["TrainingJobStatus"] == "Completed"
