"""When a rehearsal is passed, and what it may rehearse."""

import dataclasses
from pathlib import Path

import pytest

from spotproof.errors import NotIdentical, SpecError, SpotError
from spotproof.rehearsal import judge
from spotproof.rehearsal.run import check_rehearsable, count_planned, image_command, undisturbed_spec
from spotproof.report import Verdict, summarize
from spotproof.schedule import parse_schedule
from spotproof.spec import JobSpec

PASSED = dataclasses.replace(
    summarize({}, []),
    num_interruptions=2,
    reclaims_planned=2,
    final_step=90,
    verdict=Verdict(is_identical=True, compared="c"),
)


def job(folder: Path, **fields: object) -> JobSpec:
    (folder / "train.py").touch()
    return JobSpec.model_validate(
        {
            "name": "a",
            "image_uri": "image",
            "role": "arn:aws:iam::123456789012:role/R",
            "instance_type": "ml.m5.large",
            "output_path": "s3://bucket/out",
            "checkpoint_s3_uri": "s3://bucket/checkpoints",
            "use_spot_instances": True,
            "max_wait": 86400,
            "source_dir": folder,
            "entrypoint": "train.py",
            **fields,
        }
    )


def test_identical_and_all_reclaims() -> None:
    """Both together are a pass."""
    judge(PASSED)


def test_other_model_fails() -> None:
    """Another model is NotIdentical, exit 7, with the first difference."""
    verdict = Verdict(is_identical=False, compared="c", where="lightning/w", detail="other bytes")
    with pytest.raises(NotIdentical, match="lightning/w: other bytes") as caught:
        judge(dataclasses.replace(PASSED, verdict=verdict))

    assert caught.value.exit_code == 7


def test_reclaim_that_did_not_happen_fails_unless_allowed() -> None:
    """A rehearsal that proved less than it was asked to is no pass, and says why."""
    summary = dataclasses.replace(PASSED, num_interruptions=1)
    with pytest.raises(SpotError, match=r"1 of 2 planned.*finished at step 90.*--allow-unfired"):
        judge(summary)

    judge(summary, needs_all_reclaims=False)


@pytest.mark.parametrize(
    ("text", "planned"), [("none", 0), ("step:3,at:5s@grace=2", 2), ("every:5s", 0), ("step:3,poisson:3/h", 1)]
)
def test_planned_reclaims_are_counted(text: str, planned: int) -> None:
    """Steps and instants promise a reclaim each; rates promise no number."""
    assert count_planned(parse_schedule(text)) == planned


def test_undisturbed_run_shares_nothing(tmp_path: Path) -> None:
    """The undisturbed run is the same job on demand, with places that the first one's prefixes do not cover."""
    spec = job(tmp_path)
    twin = undisturbed_spec(spec)

    assert not twin.use_spot_instances
    assert twin.max_wait is None
    assert twin.checkpoint_s3_uri == "s3://bucket/checkpoints-undisturbed/"
    assert twin.output_path == "s3://bucket/out-undisturbed"
    assert twin.hyperparameters == spec.hyperparameters
    assert (
        undisturbed_spec(job(tmp_path, checkpoint_s3_uri="s3://other")).checkpoint_s3_uri == "s3://other/-undisturbed/"
    )


@pytest.mark.parametrize(
    ("entrypoint", "command"),
    [
        (("train.py", "-v"), ["python", "-m", "spotproof.container", "train.py", "-v"]),
        (("python", "train.py"), ["python", "train.py"]),
        (("./run.sh",), ["./run.sh"]),
    ],
)
def test_python_file_is_started_by_the_container_entry(entrypoint: tuple[str, ...], command: list[str]) -> None:
    """A Python file alone gets SageMaker's arguments and variables; a command is taken as it is."""
    assert image_command(entrypoint) == command


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"use_spot_instances": False, "max_wait": None}, "use_spot_instances is not set"),
        ({"source_dir": None}, "source_dir is missing"),
        ({"entrypoint": None}, "entrypoint is missing"),
        ({"entrypoint": "trian.py"}, "trian.py, which does not exist"),
        ({"inputs": {"training": "s3://real/data"}}, "--input training=FOLDER"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_first(tmp_path: Path, fields: dict[str, object], expected: str) -> None:
    """What the local platform could not run is said before it starts."""
    with pytest.raises(SpecError, match=expected):
        check_rehearsable(job(tmp_path, **fields))
