"""Without a schedule a rehearsal reclaims in the midst of the job, whatever its length."""

import pytest

from spotproof.errors import SpecError
from spotproof.rehearsal import rehearse
from spotproof.rehearsal.reclaims import plan_reclaims
from spotproof.schedule import parse_schedule
from spotproof.spec import JobSpec


@pytest.mark.parametrize("num_steps", [3, 4, 7, 80, 300, 1_000_000])
def test_two_reclaims_inside_the_job(num_steps):
    """At half and four fifths of its steps: after its start, one after the other, before its end."""
    schedule = parse_schedule(plan_reclaims(num_steps=num_steps, num_seconds=9.0))

    first, second = (item.value for item in schedule.items)
    assert {item.kind for item in schedule.items} == {"step"}
    assert 1 <= first < second < num_steps


@pytest.mark.parametrize(("num_steps", "num_seconds"), [(None, 40.0), (None, 0.0), (1, 3.0)])
def test_by_the_clock_where_no_steps_are_told(num_steps, num_seconds):
    """A program that reports no steps, or hardly any, is reclaimed all the same."""
    schedule = parse_schedule(plan_reclaims(num_steps=num_steps, num_seconds=num_seconds))

    assert {item.kind for item in schedule.items} == {"at"}
    assert all(0 < item.value <= max(num_seconds, 0.2) for item in schedule.items)


def test_auto_needs_the_undisturbed_run(tmp_path):
    """Nobody else knows where the midst is: refused before anything starts."""
    (tmp_path / "train.py").write_text("")
    spec = JobSpec.model_validate(
        {
            "name": "j", "image_uri": "i", "role": "arn:aws:iam::111122223333:role/R", "instance_type": "ml.m5.large",
            "use_spot_instances": True, "max_run": 60, "max_wait": 60, "checkpoint_s3_uri": "s3://bucket/c/",
            "output_path": "s3://bucket/o", "source_dir": str(tmp_path), "entrypoint": "train.py",
        }
    )  # fmt: skip
    with pytest.raises(SpecError, match="--reclaim auto without a comparison"):
        rehearse(spec, reclaim="auto", state_dir=tmp_path / "state", compare=False)
    assert not (tmp_path / "state").exists()
