"""The plan's simulator: how fast, how it grows, and whether it finds what a paper published.

    python benchmarks/plan.py [--traces FOLDER]

FOLDER is a copy of github.com/skypilot-org/spot-traces (it has no licence, so it is not part of this repository), or
one that holds it. With it, Table 3 of "Can't Be Late" (Wu et al., NSDI '24) is
played: 48 h of work in 60 h, start-ups of 0.2 h, on the first 13 days of eight traces, a start each two hours. Its own
windows are random and not published, and of several readings of its Uniform Progress the one that leaves on-demand only
where there is spot is played: that row is a fit, greedy and omniscient are not.
"""

import argparse
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
from common import Goal, Result, add_options, finish

from spotproof.plan import Lengths, PlannedJob, Pool, forecast, generate_trace, omniscient_bound, play, spells_of
from spotproof.schedule import Trace

HOUR = 3600.0
SPOT_USD, ON_DEMAND_USD = 0.9731, 3.06
TICKS = 1872
"""13 days of 600 s, of which the paper's readme speaks."""
PAPER = {"greedy": (30.8, 17.2), "uniform-progress": (25.1, 22.9), "omniscient": (20.7, 27.4)}
"""Hours of work on demand and on spot."""


def published_job(start_hours: float = 0.2) -> PlannedJob:
    """Return the job of the paper's table."""
    return PlannedJob(
        work_seconds=48 * HOUR,
        deadline_seconds=60 * HOUR,
        start_seconds=start_hours * HOUR,
        usd_per_hour=ON_DEMAND_USD,
    )


def real_job() -> PlannedJob:
    """Return a job of 48 h with saves, as they are."""
    return PlannedJob(
        work_seconds=48 * HOUR,
        deadline_seconds=72 * HOUR,
        start_seconds=300,
        interval_seconds=600,
        save_seconds=1,
        durable_seconds=40,
        usd_per_hour=ON_DEMAND_USD,
    )


def play_plainly(job: PlannedJob, trace: Trace, start: float) -> tuple[float, float]:
    """Return finish and cost of one greedy job: the same rules and the same trace, in plain Python."""
    now, left, cost = 0.0, job.work_seconds, 0.0
    useful = job.interval_seconds - job.save_seconds
    net = 2 * job.start_seconds + job.risk_seconds
    while True:
        rest = left + job.save_seconds * max(0, -int(-(left / useful - 1e-9) // 1) - 1)
        slack = job.deadline_seconds - now - rest - net
        wait = trace.seconds_until(start + now, 1, wanted=True)
        if wait > slack:
            begin = now + max(0.0, slack)
            end = begin + job.start_seconds + rest
            return end, cost + (end - begin) * job.usd_per_hour / HOUR
        now += wait
        stay = trace.seconds_until(start + now, 1, wanted=False)
        if job.start_seconds + rest <= stay:
            stay = job.start_seconds + rest
            return now + stay, cost + stay * SPOT_USD / HOUR
        cost += stay * SPOT_USD / HOUR
        saves = max(0.0, stay - job.start_seconds - job.durable_seconds) // job.interval_seconds
        left -= saves * useful
        now += stay + 1e-6


def zones(count: int, days: float) -> list[Pool]:
    """Return zones whose up-times scatter as recorded ones do."""
    found = []
    for seed in range(count):
        up, down = Lengths(mean_seconds=4 * HOUR, variation=2.0), Lengths(mean_seconds=1.5 * HOUR, variation=2.0)
        trace = generate_trace(up, down, max(4, round(days * 24 / 5.5)), seed)
        found.append(Pool(name=str(seed), spells=spells_of(trace), usd_per_hour=SPOT_USD))
    return found


def timed(jobs: int, pools: list[Pool], policy: str) -> float:
    """Return the processor seconds of a forecast."""
    began = time.process_time()
    forecast(real_job(), pools, policy, num_jobs=jobs)
    return time.process_time() - began


def peak_megabytes(jobs: int, pools: list[Pool]) -> float:
    """Return the most that a forecast allocates."""
    tracemalloc.start()
    forecast(real_job(), pools, "uniform-progress", num_jobs=jobs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def beside_plain_python(is_quick: bool) -> tuple[list[list[str]], list[Goal]]:
    """Play the same greedy jobs both ways, in turns, and compare what comes out."""
    up, down = Lengths(mean_seconds=4 * HOUR, variation=2.0), Lengths(mean_seconds=1.5 * HOUR, variation=2.0)
    trace = generate_trace(up, down, 400, 1)
    pool = Pool(name="one", spells=spells_of(trace), usd_per_hour=SPOT_USD)
    few, many = (40, 4096) if is_quick else (1000, 40 * 4096)
    starts = np.linspace(0, trace.length_seconds, few)
    plain, fast = [], []
    for _ in range(3):
        began = time.process_time()
        slow = [play_plainly(real_job(), trace, float(start)) for start in starts]
        plain.append(few / (time.process_time() - began))
        began = time.process_time()
        forecast(real_job(), [pool], "greedy", num_jobs=many)
        fast.append(many / (time.process_time() - began))
    found = play(real_job(), [pool], "greedy", starts)
    apart = float(np.abs(found.cost_usd - np.array([cost for _, cost in slow])).max())
    assert apart < 0.02, f"The two ways differ by {apart} USD."
    ratio = float(np.median(np.array(fast) / np.array(plain)))
    rows = [
        ["greedy, plain Python loop", f"{np.median(plain):,.0f} jobs/s", "1.0 x"],
        ["greedy, Spotproof", f"{np.median(fast):,.0f} jobs/s", f"{ratio:.0f} x"],
    ]
    goal = Goal(
        what="simulated 48-hour jobs a second a core, greedy",
        measured=float(np.median(fast)),
        limit=10_000,
        unit="jobs/s",
        is_least=True,
        digits=0,
    )
    return rows, [goal]


def growth(is_quick: bool) -> tuple[list[list[str]], list[Goal]]:
    """Time by jobs, zones and trace length, one of them changed at a time; and the memory."""
    rows = []
    base = 2000 if is_quick else 20_000
    for what, cases in (
        ("jobs", [(base // 10, 1, 30), (base, 1, 30), (base * 5, 1, 30)]),
        ("zones", [(base, 1, 30), (base, 3, 30), (base, 9, 30)]),
        ("days of trace", [(base, 1, 15), (base, 1, 60), (base, 1, 240)]),
    ):
        times = [timed(jobs, zones(count, days), "uniform-progress") for jobs, count, days in cases]
        for (jobs, count, days), seconds in zip(cases, times, strict=True):
            value = {"jobs": jobs, "zones": count, "days of trace": days}[what]
            bar = "█" * max(1, round(20 * seconds / max(times)))
            rows.append([f"{what}: {value:,}", f"{bar} {seconds:.2f} s", f"{jobs / seconds:,.0f} jobs/s"])
    small, large = peak_megabytes(base // 2, zones(1, 30)), peak_megabytes(base * 5, zones(1, 30))
    rows.append([f"memory, {base // 2:,} and {base * 5:,} jobs", f"{small:.1f} MB", f"{large:.1f} MB"])
    fleet = timed(5000 if is_quick else 100_000, zones(9, 60), "uniform-progress")
    goals = [
        Goal(what="memory of ten times the jobs", measured=large / small, limit=1.1),
        Goal(what="100,000 jobs over 9 zones and 60 days", measured=fleet, limit=60, unit="s"),
    ]
    return rows, goals


def published_files(folder: Path) -> list[Path]:
    """Return the traces of the paper's table, wherever in *folder* they are."""
    return sorted(path for path in folder.resolve().rglob("us-west-2*.json") if path.parent.name == "aws-10-26-2022")


def table_3(files: list[Path]) -> tuple[list[list[str]], list[Goal]]:
    """Play the paper's table on its traces."""
    pools = []
    for path in files:
        record = json.loads(path.read_text())
        trace = Trace.from_ticks(record["metadata"]["gap_seconds"], record["data"][:TICKS])
        pools.append(Pool(name=path.stem, spells=spells_of(trace), usd_per_hour=SPOT_USD))
    starts = np.arange(0, TICKS - 360, 12) * 600.0
    rows, goals = [], []
    for policy, paper in PAPER.items():
        if policy == "omniscient":
            found = [omniscient_bound(published_job(), [pool], starts) for pool in pools]
        else:
            found = [play(published_job(), [pool], policy, starts) for pool in pools]
        for place, want in zip(("on_demand", "spot"), paper, strict=True):
            hours = np.concatenate([getattr(each, f"{place}_work_seconds") for each in found]) / HOUR
            rows.append(
                [
                    f"Table 3, {policy}, {place.replace('_', ' ')}",
                    f"{hours.mean():.1f} ± {hours.std():.1f} h",
                    f"{want} h",
                ]
            )
            goals.append(
                Goal(
                    what=f"Table 3, {policy}, {place.replace('_', ' ')}: off by",
                    measured=abs(float(hours.mean()) - want),
                    limit=0.3,
                    unit="h",
                )
            )
    return rows, goals


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    args = parser.parse_args()
    parts = [beside_plain_python(args.quick), growth(args.quick)]
    notes = []
    if args.traces is not None:
        files = published_files(args.traces)
        if len(files) != 8:
            parser.error(f"--traces {args.traces} holds {len(files)} of the 8 files of 1-node/aws-10-26-2022.")
        parts.append(table_3(files))
    else:
        notes.append('Table 3 of "Can\'t Be Late" was not played: no --traces were given.')
    result = Result(
        "plan",
        "The plan's simulator",
        "48 h of work in 72 h with a save each 600 s; growth under uniform progress; processor time of one core",
        ["", "time or hours", "rate, ratio or the paper's"],
        [row for rows, _ in parts for row in rows],
        [goal for _, goals in parts for goal in goals],
        notes,
    )
    finish(result, args.json)


if __name__ == "__main__":
    main()
