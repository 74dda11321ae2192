"""Every private attribute of Lightning that Spotproof touches, in one place; tests/unit/lightning names what broke.

``loops``: between the batches, and positions in the data. ``notices``: between two safe points. ``run``: what Lightning
leaves out of its checkpoints. ``files``: what ModelCheckpoint and intervals in time remember. ``averages``: stochastic
weight averaging. ``finders``: searches for learning rates and batch sizes. ``loggers``: writing on where an earlier
attempt left off. ``ranks``: which checkpoint several processes load.
"""

from spotproof.lightning._private.averages import restore_averages
from spotproof.lightning._private.files import clocks, file_memories, restore_clocks, restore_file_memories
from spotproof.lightning._private.finders import found, search_again, take_over
from spotproof.lightning._private.loggers import (
    csv_state,
    event_paths,
    follow_csv,
    follow_tensorboard,
    log_dir_of,
    restore_csv,
    spool_tensorboard,
    step_after,
    tell_restart,
    watch_csv,
    watch_end,
)
from spotproof.lightning._private.loops import (
    FitHooks,
    Positions,
    batches_that_stepped,
    begin_reading_now,
    data_without_position,
    dump_checkpoint,
    is_between_optimizer_steps,
    logged_steps,
    positions,
    saved_positions,
    validation_states,
)
from spotproof.lightning._private.notices import NoticeHooks, handlers_to_restore, let_go_of_fetchers
from spotproof.lightning._private.ranks import choose_checkpoint, forget_choice, refuse_strategy, restore_weights
from spotproof.lightning._private.run import restore_run_state, run_state

__all__ = [
    "FitHooks",
    "NoticeHooks",
    "Positions",
    "batches_that_stepped",
    "begin_reading_now",
    "choose_checkpoint",
    "clocks",
    "csv_state",
    "data_without_position",
    "dump_checkpoint",
    "event_paths",
    "file_memories",
    "follow_csv",
    "follow_tensorboard",
    "forget_choice",
    "found",
    "handlers_to_restore",
    "is_between_optimizer_steps",
    "let_go_of_fetchers",
    "log_dir_of",
    "logged_steps",
    "positions",
    "refuse_strategy",
    "restore_averages",
    "restore_clocks",
    "restore_csv",
    "restore_file_memories",
    "restore_run_state",
    "restore_weights",
    "run_state",
    "saved_positions",
    "search_again",
    "spool_tensorboard",
    "step_after",
    "take_over",
    "tell_restart",
    "validation_states",
    "watch_csv",
    "watch_end",
]
