"""A restart in an event file, to the reader behind TensorBoard's page: what was read before is dropped."""

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from spotproof.lightning import _private as private


def log(folder: Any, steps: range, *, number: int, restart: int | None = None) -> None:
    """Log *steps*, as the attempt *number* does: its file is newer than that of the one before."""
    with SummaryWriter(str(folder), filename_suffix=f".{number}") as writer:
        if restart is not None:
            logger: Any = SimpleNamespace(experiment=writer)
            private.tell_restart(logger, restart)
        for step in steps:
            writer.add_scalar("loss", step + number / 10, step)
    (file,) = folder.glob(f"*.{number}")
    file.rename(folder / f"events.out.tfevents.{1000 + number}.host.{number}")


@pytest.mark.parametrize("is_looking", [True, False], ids=["that was looking", "that comes later"])
def test_what_is_computed_again_is_seen_once(tmp_path: Any, is_looking: bool) -> None:
    """At the first reclaim as at the next: to TensorBoard the first start in a folder is the training's own."""
    board = EventAccumulator(str(tmp_path), tensor_size_guidance={"scalars": 0})
    log(tmp_path, range(8), number=0)
    if is_looking:
        board.Reload()
    log(tmp_path, range(5, 19), number=1, restart=5)
    if is_looking:
        board.Reload()
    log(tmp_path, range(16, 20), number=2, restart=16)
    board.Reload()

    assert [event.step for event in board.Tensors("loss")] == list(range(20))


def test_the_step_after_what_is_kept(tmp_path: Any) -> None:
    """Of all records in all parts; nothing kept begins at 0."""
    log(tmp_path, range(3, 9), number=0)
    (file,) = tmp_path.iterdir()

    assert private.step_after([file.read_bytes(), b""]) == 9
    assert private.step_after([]) == 0


def test_a_logger_of_lightning_has_what_is_written_to(tmp_path: Any) -> None:
    """The writers of its experiment, each with an event writer."""
    logger = TensorBoardLogger(tmp_path)
    private.tell_restart(logger, 3)
    logger.experiment.close()

    board = EventAccumulator(str(logger.log_dir)).Reload()
    assert board._seen_session_start
