"""``tensorboard``: TensorBoard on what a job logs, wherever that lies."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotproof.cli.options import Aws, Endpoint, JobName, Json, StateDir
from spotproof.cli.own_folder import own_folder
from spotproof.errors import SpecError

if TYPE_CHECKING:
    from spotproof.report import Board
    from spotproof.storage import Storage

__all__ = ["tensorboard"]

_REFRESH_SECONDS = 5.0
"""As TensorBoard itself looks for what is new."""


def tensorboard(
    job: JobName,
    port: Annotated[int, typer.Option(help="Of TensorBoard, on this machine only. 0: any free one.", min=0)] = 6006,
    only_print: Annotated[bool, typer.Option("--print", help="Say where the files are; start nothing.")] = False,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show a job's curves in TensorBoard.

    While it runs or afterwards: the files are found by what the job's loggers said, its hyperparameters, its
    TensorBoardOutputConfig and its checkpoint place. They are copied to this machine and kept up to date until Ctrl-C.
    """
    from spotproof.cli.console import print_json, print_line

    board, storage = _find(job, endpoint, is_aws, state_dir)
    if only_print:
        command = f"tensorboard --logdir {board.url}"
        if as_json:
            print_json({"job_name": job, "folder": board.url, "known_by": board.origin, "command": command})
        else:
            print_line(f"{board.url}\n  {board.origin}\n  {command}")
        return
    with own_folder("spotproof-curves-") as folder:
        ended = threading.Event()
        copying = threading.Thread(target=_keep_copied, args=(storage, folder, ended), daemon=True)
        url = _serve(str(folder), port)
        copying.start()
        if as_json:
            print_json({"job_name": job, "folder": board.url, "known_by": board.origin, "url": url})
        else:
            print_line(f"{board.url} is shown at {url}; Ctrl-C ends it.")
        try:
            threading.Event().wait()
        finally:
            ended.set()


def _find(job: str, endpoint: str | None, is_aws: bool, state_dir: Path | None) -> "tuple[Board, Storage]":
    from spotproof.cli.locate import open_service
    from spotproof.cli.report import events_of
    from spotproof.report import boards_of, has_event_files
    from spotproof.storage import open_storage

    description = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir).describe(job)
    boards = boards_of(description, events_of(description))
    looked_at = []
    for board in boards:
        storage = open_storage(board.url)
        try:
            if has_event_files(storage):
                return board, storage
            looked_at.append(f"{board.url} ({board.origin}) holds none")
        except OSError as error:
            looked_at.append(f"{board.url} ({board.origin}) can't be read: {error}")
    raise SpecError(
        f"There are no TensorBoard files of {job}.",
        why="; ".join(looked_at) + "." if looked_at else "It names no place in S3 where they could be.",
        do="Wait until it has logged something, or set logger.save_dir=s3://… or a folder below its checkpoints.",
    )


def _serve(folder: str, port: int) -> str:
    """Start TensorBoard on loopback, in this process, so that it can't outlive it; return its address.

    Raises:
        SpecError: It is not installed, or the port is taken.
    """
    import logging

    try:
        from tensorboard import program
    except ImportError as error:
        raise SpecError(
            "TensorBoard can't be started: it is not installed.", do="Run pip install tensorboard."
        ) from error
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    server: Any = program.TensorBoard()
    # Its fast reader in a process of its own knows nothing of restarts.
    server.configure(argv=[None, "--logdir", folder, "--host", "127.0.0.1", "--port", str(port), "--load_fast=false"])
    try:
        return str(server.launch())
    except program.TensorBoardServerException as error:
        raise SpecError(f"TensorBoard does not start: {error.msg}.", do="Name another --port, or 0.") from error


def _keep_copied(storage: "Storage", folder: Path, ended: threading.Event) -> None:
    from spotproof.cli.console import print_line
    from spotproof.report import copy_event_files

    known: dict[str, int] = {}
    has_failed = False
    while True:
        try:
            copy_event_files(storage, folder, known)
            has_failed = False
        except OSError as error:
            if not has_failed:
                print_line(f"{storage.url} can't be read, it is tried again: {error}", stderr=True, style="yellow")
            has_failed = True
        if ended.wait(_REFRESH_SECONDS):
            return
