"""What the end-to-end tests share."""

from pathlib import Path

import pytest
from counter_job import COUNTER, JOB


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A good job.yaml."""
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(source=COUNTER))
    (tmp_path / "data.txt").write_text("data")
    return path
