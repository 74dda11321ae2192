"""The live view without a terminal: one line for each thing that happened, in order."""

import io
from datetime import datetime, timezone

from rich.console import Console

from spotproof.cli.live import LiveView
from spotproof.rehearsal import Compared, InputsUploaded, JobEnded, JobSubmitted, PlatformReady, StatusChanged, Stepped
from spotproof.report import Verdict

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def changed(status: str, message: str = "", attempt: int = 0, last_step: int | None = None) -> StatusChanged:
    return StatusChanged(job_name="j", at=AT, status=status, message=message, attempt=attempt, last_step=last_step)


def test_story_is_told_in_order() -> None:
    """What happened, where a reclaim hit, and the restart can be read from top to bottom."""
    file = io.StringIO()
    with LiveView(Console(file=file, width=100)) as view:
        for event in [
            PlatformReady(url="http://127.0.0.1:1"),
            InputsUploaded(channel="training", num_files=1),
            JobSubmitted(job_name="j", is_spot=True, reclaim="step:3"),
            changed("Starting", "Starting the training job"),
            changed("Starting", "Starting the training job"),
            changed("Training"),
            Stepped(job_name="j", attempt=0, epoch=0, step=3),
            changed("Interrupted", last_step=3),
            changed("Training", attempt=1),
            Stepped(job_name="j", attempt=1, epoch=0, step=1),
            Stepped(job_name="j", attempt=1, epoch=0, step=2),
            changed("Completed", "Training job completed", attempt=1),
            JobEnded(job_name="j", status="Completed"),
            JobSubmitted(job_name="k", is_spot=False, reclaim="none", total_steps=9),
            Compared(verdict=Verdict(is_identical=True, compared="last checkpoints")),
        ]:
            view(event)
    lines = [line[8:].strip() for line in file.getvalue().splitlines() if line.strip()]

    assert lines == [
        "ready        local SageMaker at http://127.0.0.1:1",
        "uploaded     input training, 1 file",
        "submitted    j",
        "managed spot, to be reclaimed at step:3",
        "Starting     the training job",
        "Training     attempt 0",
        "Interrupted  attempt 0 was reclaimed after step 3",
        "Training     attempt 1",
        "resumed      attempt 1 goes on from step 1, 2 steps lost",
        "Completed    Training job completed",
        "submitted    k",
        "on demand, undisturbed",
        "compared     identical",
    ]
