"""Without a schedule a rehearsal reclaims in the midst of the job, whatever its length."""

import pytest

from spotproof.errors import SpecError
from spotproof.rehearsal import rehearse
from spotproof.rehearsal.reclaims import plan_reclaims
from spotproof.schedule import parse_schedule
from spotproof.spec import JobSpec


@pytest.mark.parametrize("num_steps", [3, 4, 7, 80, 300, 1_000_000])
@pytest.mark.parametrize("saved_share", [None, 0.0, 0.4, 0.65, 0.75, 1.0])
def test_two_reclaims_inside_the_job(num_steps, saved_share):
    """At half and four fifths of its steps: after its start, one after the other, before its end."""
    saved = None if saved_share is None else max(1, int(num_steps * saved_share))
    schedule = parse_schedule(plan_reclaims(num_steps=num_steps, num_seconds=9.0, first_saved_step=saved))

    first, second = (item.value for item in schedule.items)
    assert {item.kind for item in schedule.items} == {"step"}
    assert 1 <= first < second < num_steps


@pytest.mark.parametrize(
    ("saved", "places"),
    [(None, "step:150,step:240"), (20, "step:150,step:240"), (180, "step:210,step:240"), (290, "step:150,step:240")],
)
def test_the_first_comes_behind_the_first_save(saved, places):
    """So that there is something to go on from; a program that saves at its end alone is shown what that is worth."""
    assert plan_reclaims(num_steps=300, num_seconds=9.0, first_saved_step=saved) == places


@pytest.mark.parametrize(("num_steps", "num_seconds"), [(None, 40.0), (None, 0.0), (1, 3.0)])
def test_by_the_clock_where_no_steps_are_told(num_steps, num_seconds):
    """A program that reports no steps, or hardly any, is reclaimed all the same."""
    schedule = parse_schedule(plan_reclaims(num_steps=num_steps, num_seconds=num_seconds, first_saved_step=None))

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
