"""Will the job's checkpoints be written, mirrored, and its own? Pure."""

from collections.abc import Iterator

from spotproof.launch.preflight.check import Check, error, ok, unknown, warning
from spotproof.launch.preflight.facts import Checkpoints, Facts, Unseen
from spotproof.spec import JobSpec, as_folder

__all__ = ["check_checkpoints", "check_script"]

_OTHER_PLACE = "For a fresh start name another checkpoint_s3_uri."


def check_checkpoints(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    """Yield what is known of the place that checkpoints are mirrored to."""
    if spec.checkpoint_s3_uri is None:
        yield ok("checkpoint_s3_uri", "none: on demand, without checkpoints in S3")
        return
    if isinstance(facts.writers, Unseen):
        yield unknown("checkpoint_s3_uri", f"whether a running job writes there: {facts.writers.reason}")
    elif facts.writers:
        yield error(
            "checkpoint_s3_uri",
            f"{', '.join(facts.writers)} is running and writes there: two jobs would mix their checkpoints",
            "Stop that job, or name another checkpoint_s3_uri.",
        )
    if isinstance(facts.checkpoints, Unseen):
        yield unknown("checkpoint_s3_uri", facts.checkpoints.reason)
    elif facts.checkpoints is not None:
        yield _check_content(spec.checkpoint_s3_uri, facts.checkpoints)


def _check_content(uri: str, found: Checkpoints) -> Check:
    place, subject = as_folder(uri), "checkpoint_s3_uri"
    if found.num_objects == 0:
        slash = "" if uri.endswith("/") else "; it is sent with a slash at its end, as run-1 would also restore run-10"
        return ok(subject, f"{place} is empty: the job begins anew{slash}")
    whose = f" of job {found.job_name}" if found.job_name else ""
    if found.newest_step is None:
        return warning(
            subject,
            f"{place} holds {found.num_objects} files{whose} and no checkpoint of Spotproof: each start downloads them",
            "If another program writes there, name another checkpoint_s3_uri.",
        )
    if found.damage is not None:
        return warning(
            subject,
            f"the newest checkpoint in {place}, step {found.newest_step}{whose}, can't be read: {found.damage}",
            f"The job will go on from an older one. {_OTHER_PLACE}",
        )
    saved = f", saved {found.saved_at:%Y-%m-%d %H:%M} UTC" if found.saved_at is not None else ""
    run = f" (run {found.run_id[:8]})" if found.run_id else ""
    return warning(
        subject,
        f"{place} holds checkpoints up to step {found.newest_step}{whose}{run}{saved}: the job will go on from there",
        _OTHER_PLACE,
    )


def check_script(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    """Yield whether the program, by its text, writes checkpoints where they are mirrored."""
    if spec.checkpoint_s3_uri is None:
        return
    directory = spec.checkpoint_directory
    named = [key for key, value in spec.hyperparameters.items() if directory in str(value)]
    named += [key for key, value in spec.environment.items() if directory in value]
    if spec.source_dir is None or facts.source is None:
        if named:
            yield ok("checkpoints", f"{named[0]} names {directory}")
        else:
            yield unknown("checkpoints", "the program is in the image; with source_dir its text would be looked at")
        return
    program = next((word for word in spec.entrypoint or () if word.endswith(".py")), None)
    if program is not None and not (spec.source_dir / program).is_file():
        yield warning(
            "entrypoint", f"{program} is not in {spec.source_dir}", "Correct entrypoint or source_dir, if it should be."
        )
    if not facts.source.evidence and not named:
        yield warning(
            "checkpoints",
            f"no Python file in source_dir ({facts.source.num_files} read) writes to {directory}: by their text none "
            "uses SpotCheckpoint, SpotCLI, SpotLoop or SM_CHECKPOINT_DIR"
            + (", and each reclaim would lose everything" if spec.use_spot_instances else ""),
            "Add SpotCheckpoint (README, Your own script); `launch --rehearse` shows whether the job resumes.",
        )
        return
    shown = (facts.source.evidence or tuple(named))[0]
    is_elsewhere = spec.checkpoint_local_path is not None and facts.source.literal_directories
    if is_elsewhere and "SM_CHECKPOINT_DIR" not in " ".join(facts.source.evidence):
        yield warning(
            "checkpoint_local_path",
            f"{facts.source.literal_directories[0]} names /opt/ml/checkpoints, and {directory} is mirrored",
            "Read SM_CHECKPOINT_DIR in the program, or leave checkpoint_local_path out.",
        )
    else:
        yield ok("checkpoints", f"{shown} writes them")
