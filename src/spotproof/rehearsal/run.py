"""The rehearsal itself: start, submit, watch, run undisturbed, compare, sum up. A shell around pure parts."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Literal

from spotproof.errors import SpecError
from spotproof.events import CheckpointCommitted, Event
from spotproof.launch import TrainingService, build_request, read_files, unique_job_name, with_uploaded_inputs
from spotproof.local import DEFAULT_CAPACITY, Image, LocalSageMaker
from spotproof.rehearsal.chaos import Chaos, plan_chaos
from spotproof.rehearsal.compare import compare_jobs
from spotproof.rehearsal.environment import only_aws_settings
from spotproof.rehearsal.progress import ChaosPlanned, Compared, InputsUploaded, JobSubmitted, OnProgress, PlatformReady
from spotproof.rehearsal.reclaims import AUTO_RECLAIM, plan_reclaims
from spotproof.rehearsal.trouble import Trouble
from spotproof.rehearsal.watch import WatchedJob, check_completed, watch_job
from spotproof.report import PriceTag, Summary, read_events, summarize
from spotproof.schedule import Schedule
from spotproof.spec import JobSpec, split_s3_uri
from spotproof.storage import Storage, open_storage

__all__ = ["check_rehearsable", "count_planned", "image_command", "rehearse", "undisturbed_spec"]

_UNDISTURBED = "-undisturbed"


def rehearse(
    spec: JobSpec,
    *,
    reclaim: str | None,
    state_dir: Path,
    compare: bool = True,
    hosts: Literal["auto", "namespace", "plain"] = "auto",
    sync_faults: str | None = None,
    s3_faults: str | None = None,
    chaos_seed: int | None = None,
    price: PriceTag | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Summary:
    """Run the job on a local SageMaker of its own, reclaimed as *reclaim* says; return what happened.

    The verdict is in the summary, not in the way this returns: see :func:`spotproof.rehearsal.judge.judge`. However it
    is left, by an error or Ctrl-C too, no process stays behind.

    Args:
        spec: A spot job with ``source_dir`` and ``entrypoint``; inputs are local.
        reclaim: An interruption schedule; ``auto`` for two reclaims in the midst of the job, whose undisturbed run
            comes first then; None for none.
        state_dir: An empty or missing folder for everything the platform keeps.
        compare: Whether the same job is also run on demand, undisturbed, and the models compared.
        hosts: How the local platform isolates hosts.
        sync_faults: What goes wrong with the mirroring of the job's checkpoints; None for nothing.
        s3_faults: What goes wrong with S3 while the job runs; None for nothing.
        chaos_seed: Draw what of these three is None. The undisturbed run comes first then, to know the job's length.
        price: Of one of the instances that the job is for, or why none is known; None for no word about costs.
        on_progress: Told what happens, as it happens.

    Raises:
        SpecError: The job, the schedule or the faults cannot be rehearsed; nothing was started.
        LaunchError: A job did not end Completed.
        EngineError: The local platform could not start.
    """
    is_auto = reclaim == AUTO_RECLAIM
    given = Trouble(reclaim=None if is_auto else reclaim, sync_faults=sync_faults, s3_faults=s3_faults)
    image = check_rehearsable(spec)
    if not compare and (chaos_seed is not None or is_auto):
        raise SpecError(
            f"{'Chaos' if chaos_seed is not None else '--reclaim auto'} without a comparison shows nothing.",
            why="The undisturbed run tells how long the job is, and what it must end with.",
            do="Leave out --no-compare.",
        )
    now = datetime.now(timezone.utc)
    capacity = max(DEFAULT_CAPACITY, spec.instance_count)
    platform = LocalSageMaker(state_dir, images={spec.image_uri: image}, hosts=hosts, capacity=capacity)
    with only_aws_settings({}), _closed_for_sure(platform), only_aws_settings(platform.environment()):
        on_progress(PlatformReady(url=platform.url))
        service = TrainingService(endpoint=platform.url, s3_endpoint=platform.s3_url)
        job_name = unique_job_name(spec.name, now)
        spec = _stage_inputs(service, spec, on_progress)
        twin = undisturbed_spec(spec)
        twin_name = unique_job_name(spec.name[:31] + _UNDISTURBED, now)
        undisturbed: WatchedJob | None = None
        trouble = given
        if chaos_seed is not None or is_auto:
            undisturbed = _run_job(service, twin, twin_name, "none", on_progress)
        if undisturbed is not None and chaos_seed is None:
            trouble = replace(given, reclaim=_reclaims_for(undisturbed, _checkpoints_of(twin)))
        elif undisturbed is not None and chaos_seed is not None:
            trouble = given.completed(_plan_for(undisturbed, _checkpoints_of(twin), chaos_seed))
            on_progress(ChaosPlanned(seed=chaos_seed, sync_faults=trouble.sync_text, s3_faults=trouble.s3_text))
        with trouble.let_in(platform, job_name):
            total = _num_steps(undisturbed, _checkpoints_of(twin)) if undisturbed else None
            disturbed = _run_job(service, spec, job_name, trouble.reclaim_text, on_progress, total)
        checkpoints = _checkpoints_of(spec)
        events: list[Event] = [*read_events(checkpoints), *disturbed.progress]
        faults = trouble.summary(platform, job_name)
        num_planned = count_planned(trouble.schedule)
        if not compare:
            return summarize(disturbed.description, events, reclaims_planned=num_planned, faults=faults, price=price)
        if undisturbed is None:
            total = _num_steps(disturbed, checkpoints)
            undisturbed = _run_job(service, twin, twin_name, "none", on_progress, total)
        verdict = compare_jobs(
            service,
            disturbed=checkpoints,
            disturbed_model=_model_of(disturbed),
            undisturbed=_checkpoints_of(twin),
            undisturbed_model=_model_of(undisturbed),
        )
        on_progress(Compared(verdict=verdict))
        return summarize(
            disturbed.description,
            events,
            undisturbed=undisturbed.description,
            verdict=verdict,
            reclaims_planned=num_planned,
            faults=faults,
            price=price,
        )


def _reclaims_for(job: WatchedJob, checkpoints: Storage) -> str:
    saved = [event.step for event in _saves(checkpoints)]
    return plan_reclaims(
        num_steps=_num_steps(job, checkpoints),
        num_seconds=float(job.description["TrainingTimeInSeconds"]),
        first_saved_step=min(filter(None, saved), default=None),
    )


def _plan_for(job: WatchedJob, checkpoints: Storage, seed: int) -> Chaos:
    return plan_chaos(
        seed,
        num_steps=_num_steps(job, checkpoints),
        num_seconds=float(job.description["TrainingTimeInSeconds"]),
        num_bytes=max((event.total_bytes for event in _saves(checkpoints)), default=None),
    )


def _saves(checkpoints: Storage) -> list[CheckpointCommitted]:
    return [event for event in read_events(checkpoints) if isinstance(event, CheckpointCommitted)]


def _num_steps(job: WatchedJob, checkpoints: Storage) -> int | None:
    """Return how many steps *job* has done; None if it tells none. A very short one may tell them by its last save."""
    told = [*(event.step for event in job.progress), *filter(None, (event.step for event in _saves(checkpoints)))]
    return max(told, default=None)


def check_rehearsable(spec: JobSpec, *, give_data: str = "--input {channel}=FOLDER") -> Image:
    """Return the image that stands for ``image_uri`` on the local platform.

    *give_data* is the option that gives local data for a channel, for messages.

    Raises:
        SpecError: The job is not for spot, does not say what its image holds, or reads inputs from real S3.
    """
    if not spec.use_spot_instances:
        raise SpecError(
            "use_spot_instances is not set.",
            why="Only spot capacity is reclaimed: there is nothing to rehearse.",
            do="Add use_spot_instances: true, max_wait and checkpoint_s3_uri.",
        )
    if spec.source_dir is None or spec.entrypoint is None:
        missing = "source_dir" if spec.source_dir is None else "entrypoint"
        raise SpecError(
            f"{missing} is missing.",
            why="The local platform pulls no image; it must know the folder with the code and the command.",
            do="Write for example source_dir: . and entrypoint: train.py",
        )
    for name, channel in spec.inputs.items():
        if channel.local_path is None:
            raise SpecError(
                f"Input {name!r} is {channel.place}.",
                why="The rehearsal's own S3 holds nothing of it.",
                do=f"Give local data for it: {give_data.format(channel=name)}.",
            )
    program = next((word for word in spec.entrypoint if word.endswith(".py")), None)
    if program is not None and not (spec.source_dir / program).is_file():
        raise SpecError(
            f"entrypoint names {program}, which does not exist in {spec.source_dir}.",
            do="Correct entrypoint or source_dir.",
        )
    return Image(spec.source_dir, image_command(spec.entrypoint))


def image_command(entrypoint: Sequence[str]) -> list[str]:
    """Return the command of an image with that *entrypoint*: a Python file alone is started by our container entry."""
    words = list(entrypoint)
    return ["python", "-m", "spotproof.container", *words] if words[0].endswith(".py") else words


def undisturbed_spec(spec: JobSpec) -> JobSpec:
    """Return the same job on demand, with checkpoints and output of its own."""
    assert spec.checkpoint_s3_uri is not None
    return spec.model_copy(
        update={
            "use_spot_instances": False,
            "max_wait": None,
            "checkpoint_s3_uri": _beside(spec.checkpoint_s3_uri) + "/",
            "output_path": _beside(spec.output_path),
        }
    )


def _beside(uri: str) -> str:
    bucket, prefix = split_s3_uri(uri)
    return f"s3://{bucket}/{prefix.rstrip('/')}{_UNDISTURBED}"


def count_planned(schedule: Schedule) -> int:
    """Return how many reclaims the schedule names one by one; rates and traces promise no number."""
    return sum(1 for item in schedule.items if item.kind in ("step", "at"))


def _run_job(
    service: TrainingService,
    spec: JobSpec,
    job_name: str,
    reclaim: str,
    on_progress: OnProgress,
    total_steps: int | None = None,
) -> WatchedJob:
    service.submit(build_request(spec, job_name=job_name))
    on_progress(
        JobSubmitted(job_name=job_name, is_spot=spec.use_spot_instances, reclaim=reclaim, total_steps=total_steps)
    )
    watched = watch_job(service, job_name, on_progress)
    check_completed(watched)
    return watched


def _stage_inputs(service: TrainingService, spec: JobSpec, on_progress: OnProgress) -> JobSpec:
    for uri in {spec.output_path, spec.checkpoint_s3_uri or spec.output_path}:
        service.make_bucket(split_s3_uri(uri)[0])
    found = {name: read_files(path) for name, path in spec.local_inputs.items()}
    staged = with_uploaded_inputs(spec, {name: files.digest for name, files in found.items()})
    for name, files in found.items():
        service.upload(files, staged.inputs[name].place)
        on_progress(InputsUploaded(channel=name, num_files=len(files.files)))
    return staged


def _checkpoints_of(spec: JobSpec) -> Storage:
    assert spec.checkpoint_s3_uri is not None
    return open_storage(spec.checkpoint_s3_uri.rstrip("/"))


def _model_of(job: WatchedJob) -> str | None:
    return (job.description.get("ModelArtifacts") or {}).get("S3ModelArtifacts")


@contextmanager
def _closed_for_sure(platform: LocalSageMaker) -> Iterator[LocalSageMaker]:
    """Open and close *platform*. The first Ctrl-C or SIGTERM ends what runs; no further one cuts the closing short."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}

    def ignore_all() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    def leave(number: int, _frame: FrameType | None) -> None:
        ignore_all()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        with platform:
            try:
                yield platform
            finally:
                ignore_all()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
