"""``report``: what a job did, saved and lost."""

from typing import TYPE_CHECKING, Any

from spotproof.cli.options import Aws, Endpoint, JobName, Json, StateDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spotproof.events import Progress
    from spotproof.report import Summary

__all__ = ["report", "summarize_job"]


def report(
    job: JobName, endpoint: Endpoint = None, is_aws: Aws = False, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Show attempts, lost steps, checkpoints and savings."""
    from spotproof.cli.locate import open_service
    from spotproof.cli.rehearse import show_summary

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    description = service.describe(job)
    from spotproof.report import read_progress

    progress = read_progress((line.at, line.message) for line in service.open_logs(job).read_new())
    show_summary(summarize_job(description, progress), as_json)


def summarize_job(description: dict[str, Any], progress: "Sequence[Progress]") -> "Summary":
    """Return the numbers of a job from its description, the events in its checkpoint folder, and its log."""
    from spotproof.report import read_events, summarize
    from spotproof.storage import open_storage

    checkpoint_uri = (description.get("CheckpointConfig") or {}).get("S3Uri")
    events = read_events(open_storage(checkpoint_uri)) if checkpoint_uri else []
    return summarize(description, [*events, *progress])
