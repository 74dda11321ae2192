"""`spotproof plan`: figures, advice, what is assumed, and errors before anything is reckoned."""

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from spotproof.cli import run

JOB = """\
name: planned
image_uri: image
role: arn:aws:iam::111122223333:role/SageMakerTraining
instance_type: ml.g5.xlarge
use_spot_instances: true
max_wait: 172800
checkpoint_s3_uri: s3://bucket/checkpoints/
output_path: s3://bucket/output
"""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No local server and no endpoint is known; the working directory holds the job and a trace."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "trace.json").write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": [1] * 30 + [0] * 6}))


def plan(*words: str) -> int:
    return run(["plan", "job.yaml", "--jobs", "200", *words])


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert plan(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


PRICES = ("--spot-price", "0.5", "--on-demand-price", "1.5")


def test_a_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every policy's figures, the intervals, and what to write into job.yaml; the same again with the same seed."""
    words = ("--work", "20h", "--deadline", "36h", "--trace", "trace.json", *PRICES)
    found = ask(capsys, *words)
    assert set(found["policies"]) == {"spot", "on-demand", "greedy", "uniform-progress"}
    spot = found["policies"]["spot"]
    assert spot["deadline_share"] == 1
    assert 20 < spot["finish_seconds"]["p50"] / 3600 < 28
    assert spot["cost_usd"]["p50"] == pytest.approx(spot["spot_seconds"] / 3600 * 0.5, rel=0.02)
    assert spot["aws_savings_percent"] == pytest.approx(100 * (1 - 0.5 / 1.5))
    assert spot["net_savings_percent"] < spot["aws_savings_percent"]
    assert found["policies"]["on-demand"]["net_savings_percent"] == pytest.approx(0, abs=1e-6)
    assert found["omniscient_bound"]["cost_usd"]["mean"] <= spot["cost_usd"]["mean"]
    assert [row["name"] for row in found["intervals"]["rows"]] == ["young", "daly", "exact", "replay"]
    advice = found["recommendation"]
    assert advice["policy"] == "spot"
    assert advice["max_run"] <= advice["max_wait"] == 36 * 3600
    assert 1 <= advice["max_retry_attempts"] <= 30
    assert advice["every_n_seconds"] == found["intervals"]["chosen"]["interval_seconds"]
    assert ask(capsys, *words) == found


def test_a_plan_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar for each policy, and every figure that was assumed is marked."""
    assert plan("--work", "20h", "--deadline", "36h", *PRICES, "--stall", "200ms") == 0
    text = capsys.readouterr().out
    assert "█" in text
    assert "assumed: give a --trace" in text
    assert text.count("assumed") >= 5
    assert "Take " in text
    assert "max_run:" in text
    row = next(line for line in text.splitlines() if line.startswith("a save stops training"))
    assert row.split()[-3:] == ["200", "ms", "given"]


@pytest.mark.parametrize("columns", [80, 120])
def test_nothing_is_cut_on_a_usual_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns the policies take two tables; no figure ends in dots, and no line is longer."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert plan("--work", "20h", "--deadline", "36h", "--trace", "trace.json", *PRICES) == 0
    out = capsys.readouterr().out

    assert "…" not in out
    assert max(len(line) for line in out.splitlines()) <= columns
    for heading in ("in time", "done p50/p90/p99", "on demand", "lost", "waits", "reclaims", "AWS savings"):
        assert heading in out
    assert out.count(" policy ") == (3 if columns == 80 else 2)


def test_without_prices_no_cost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """They are never made up: hours and the price at which spot breaks even remain."""
    found = ask(capsys, "--work", "20h", "--deadline", "36h")
    assert not found["has_prices"]
    assert found["omniscient_bound"] is None
    for policy in found["policies"].values():
        assert policy["cost_usd"] is policy["net_savings_percent"] is None
    assert 50 < found["break_even_percent"] < 100
    assert plan("--work", "20h", "--deadline", "36h") == 0
    text = capsys.readouterr().out
    assert "USD" not in text
    assert "No prices" in text


def test_prices_from_a_dated_file(capsys: pytest.CaptureFixture[str]) -> None:
    """With the date in the answer."""
    Path("prices.yaml").write_text("date: 2026-11-20\nprices:\n  ml.g5.xlarge: {on_demand: 1.4, spot: 0.6}\n")
    found = ask(capsys, "--work", "2h", "--deadline", "6h", "--prices", "prices.yaml", "--trace", "trace.json")
    assert found["has_prices"]
    assert "2026-11-20" in found["pools"][0]["spot"]["source"]
    assert found["on_demand_price"]["on_demand_usd_per_hour"] == 1.4


def test_it_says_when_spot_is_not_worth_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Where spot costs nearly as much, and where its capacity goes before anything is kept."""
    dear = ("--spot-price", "1.49", "--on-demand-price", "1.5")
    found = ask(capsys, "--work", "20h", "--deadline", "36h", *dear)["recommendation"]
    assert (found["policy"], found["use_spot_instances"], found["max_wait"]) == ("on-demand", False, None)
    assert "not worth it" in found["reason"]
    Path("bad.json").write_text(json.dumps({"metadata": {"gap_seconds": 120}, "data": [1, 0]}))
    found = ask(capsys, "--work", "20h", "--deadline", "36h", *PRICES, "--trace", "bad.json")
    assert found["recommendation"]["policy"] == "on-demand"
    assert found["policies"]["spot"]["deadline_share"] == 0
    assert found["policies"]["spot"]["finish_seconds"]["p50"] is None


def test_measured_costs_count(capsys: pytest.CaptureFixture[str]) -> None:
    """From what `rehearse --json` printed, or from the events beside checkpoints; steps become time."""
    report = {
        "stall_seconds": {"p50": 0.25, "p95": 1},
        "durable_seconds": {"p50": 2.0, "p95": 3},
        "attempts": [{"resumed_from_step": 0, "start_up_seconds": 20.0, "seconds_per_step": 0.5}],
    }
    Path("rehearsal.json").write_text(json.dumps(report))
    found = ask(capsys, "--work", "14400steps", "--deadline", "6h", "--measured", "rehearsal.json")
    assert found["work_seconds"] == 7200
    assert found["costs"]["stall_seconds"] == {"value": 0.25, "source": "measured"}
    assert found["costs"]["mirror_seconds"]["source"] == "assumed"

    at = '"at":"2026-01-01T00:00:{:02d}.000000+00:00"'
    lines = ['{"event":"attempt_started","attempt":0,"run_id":"r","config":{},"versions":{},' + at.format(0) + "}"]
    lines += [f'{{"event":"progress","attempt":0,"epoch":0,"step":{n},{at.format(10 + 2 * n)}}}' for n in range(5)]
    lines += [
        '{"event":"checkpoint_committed","attempt":0,"step":4,"stall_seconds":0.5,"durable_seconds":1.5,'
        f'"total_bytes":1,"written_bytes":1,{at.format(30)}}}'
    ]
    Path("checkpoints/events").mkdir(parents=True)
    Path("checkpoints/events/attempt-0000.jsonl").write_text("\n".join(lines) + "\n")
    found = ask(capsys, "--work", "1h", "--deadline", "6h", "--measured", "checkpoints")
    costs = {name: figure and (figure["value"], figure["source"]) for name, figure in found["costs"].items()}
    assert costs["stall_seconds"] == (0.5, "measured")
    assert costs["commit_seconds"] == (1.5, "measured")
    assert costs["warm_up_seconds"] == (10.0, "measured")
    assert costs["seconds_per_step"] == (2.0, "measured")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--work", "20h", "--deadline", "10h"), "comes before the work can be done"),
        (("--work", "-3h", "--deadline", "10h"), "--work -3h is no duration above 0"),
        (("--work", "3h", "--deadline", "0h"), "--deadline 0h"),
        (("--work", "3h", "--deadline", "40d"), "28 days"),
        (("--work", "3h", "--deadline", "2020-01-01T00:00Z"), "is past"),
        (("--work", "3h", "--deadline", "2040-01-01T00:00"), "no time zone"),
        (("--work", "3h"), "nor has job.yaml a deadline"),
        (("--work", "2000h", "--deadline", "10h"), "cut the work into several jobs"),
        (("--work", "20h", "--deadline", "10h"), "Give --deadline 20.3h or more"),
        (("--work", "3h", "--deadline", "9h", "--trace", "trace.json@foo=1"), "Trace 'trace.json@foo=1'"),
        (("--work", "3h", "--deadline", "9h", "--trace", "job.yaml"), "'job.yaml' can't be used: it has none"),
        (("--work", "100steps", "--deadline", "4h"), "how long a step takes is not known"),
        (("--work", "3h", "--deadline", "9h", "--stall", "2"), "--stall 2"),
        (("--work", "3h", "--deadline", "9h", "--trace", "none.json"), "none.json"),
        (("--work", "3h", "--deadline", "9h", "--trace", "job.yaml"), "job.yaml"),
        (("--work", "3h", "--deadline", "9h", "--trace", "zero.json"), "never 1 instances"),
        (("--work", "3h", "--deadline", "9h", "--prices", "job.yaml"), "holds no prices"),
        (("--work", "3h", "--deadline", "9h", "--spot-price", "-1"), "--spot-price -1"),
        (("--work", "3h", "--deadline", "9h", "--measured", "nowhere"), "no such file or folder"),
        (("--work", "3h", "--deadline", "9h", "--measured", "job.yaml"), "job.yaml, line 1"),
        (("--work", "3h", "--deadline", "9h", "--confidence", "2"), "confidence of 2"),
        (("--work", "3h", "--deadline", "9h", "--trace", "trace.json", "--uptime", "1h"), "--uptime"),
    ],
)
def test_bad_questions(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], named: str) -> None:
    """Exit 2, one message that names the value, nothing on stdout."""
    Path("zero.json").write_text(json.dumps({"metadata": {"gap_seconds": 120}, "data": [0, 0]}))
    assert plan(*words) == 2
    said = capsys.readouterr()
    assert named in said.err.replace("\n", " ")
    assert said.out == ""
    assert "Traceback" not in said.err


def test_the_deadline_is_that_of_job_yaml_unless_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Said once, in job.yaml, it need not be said again; an option beats it, and a time of day is reckoned from now."""
    (tmp_path / "job.yaml").write_text(JOB + "deadline: 30h\n")
    assert ask(capsys, "--work", "20h")["deadline_seconds"] == 30 * 3600
    assert ask(capsys, "--work", "20h", "--deadline", "36h")["deadline_seconds"] == 36 * 3600

    at = datetime.now(timezone(timedelta(hours=-7))) + timedelta(hours=26)
    found = ask(capsys, "--work", "20h", "--deadline", at.isoformat())["deadline_seconds"]
    assert 20.5 * 3600 < found <= 26 * 3600  # however long the command took to start


def test_a_page_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    """One file that asks no network, with every policy, the strip and the interval; the user's words are escaped."""
    Path("job.yaml").write_text(JOB)
    Path("<b>x.json").write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": [1] * 30 + [0] * 6}))
    words = ("--work", "2h", "--deadline", "6h", "--trace", "<b>x.json", *PRICES, "--html", "plan.html", "--json")
    assert plan(*words) == 0
    json.loads(capsys.readouterr().out)
    page = Path("plan.html").read_text()
    after_script = page.partition("</script></head>")[2]
    for name in ("uniform-progress", "none can beat", "Cost against deadline", "When capacity is there", "chosen: "):
        assert name in after_script
    assert "<b>x" not in after_script
    for reach in ('src="http', "src='http", 'href="http', "@import"):
        assert reach not in after_script
    assert '<meta name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert '"rangemode":"tozero"' in page  # a trace that begins without capacity is shown from its start
    assert plan(*words[:-2], "no/such/folder.html") == 2
    assert "no/such/folder.html" in capsys.readouterr().err
