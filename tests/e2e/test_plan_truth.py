"""The simulator and the local SageMaker, driven by the same trace: what was planned is what happens."""

import json
from pathlib import Path

import numpy as np
import pytest
from counter_job import rehearse

from spotproof.plan import PlannedJob, Pool, play, spells_of
from spotproof.schedule import Trace

STEPS, EVERY, STEP_SECONDS = 400, 100, 0.1
COUNTS = [1] * 16 + [0] * 5 + [1] * 10 + [0] * 4 + [1] * 60
"""By the second. Two reclaims, each far from a save, so that it is known what they lose; done well within the third
up-time."""
MIRROR_SECONDS = 0.5
"""How far the local mirror is behind: assumed."""


def run(job: Path, reclaim: str, *more: str) -> dict:
    sets = [f"steps={STEPS}", f"every={EVERY}", f"step_seconds={STEP_SECONDS}"]
    words = [word for text in sets for word in ("--set", text)]
    result = rehearse(job, "--reclaim", reclaim, "--no-compare", "--json", *words, *more, timeout_seconds=900)
    assert result.returncode == 0, result.stderr
    found: dict = json.loads(result.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_goes_as_it_was_planned(job: Path, tmp_path: Path) -> None:
    """As many reclaims; wall time within a tenth, a start-up for each restart and a second; lost steps within
    the mirror's lag, half a start-up and a second for each reclaim. The start-up and the time of a step are those of an
    undisturbed run of the same job."""
    trace = Trace.from_ticks(1.0, COUNTS)
    (tmp_path / "trace.json").write_text(json.dumps({"metadata": {"gap_seconds": 1}, "data": COUNTS}))
    calm = run(job, "none")
    (attempt,) = calm["attempts"]
    pace = attempt["seconds_per_step"]
    start = max(0.0, calm["wall_seconds"] - attempt["seconds"]) + attempt["start_up_seconds"]
    planned = PlannedJob(
        work_seconds=STEPS * pace,
        deadline_seconds=1e6,
        start_seconds=start,
        interval_seconds=EVERY * pace,
        durable_seconds=MIRROR_SECONDS,
    )
    pool = Pool(name="trace", spells=spells_of(trace), usd_per_hour=1.0)
    expected = play(planned, [pool], "spot", np.array([0.0]))

    real = run(job, f"trace:{tmp_path / 'trace.json'}")

    reclaims = real["num_interruptions"]
    assert reclaims == expected.reclaims[0] == 2
    apart = abs(real["wall_seconds"] - expected.finish_seconds[0])
    assert apart <= 0.1 * expected.finish_seconds[0] + 2 * start + 1
    most = (MIRROR_SECONDS + 1 + start / 2) / pace
    assert (
        abs(real["lost_steps"] - expected.lost_seconds[0] / pace) <= most * reclaims < expected.lost_seconds[0] / pace
    )
