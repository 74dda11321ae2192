"""A supervisor of its own: ``python supervisor_process.py PLACE``. Prints a line for each decision; may be killed."""

import sys
import time

from spotproof.launch import TrainingService
from spotproof.storage import open_storage
from spotproof.supervise import Decided, End, Submit, Supervisor, Times, read_record

TIMES = Times(
    poll_seconds=0.2,
    platform_seconds=0.5,
    warm_up_seconds=1.0,
    mirror_seconds=0.5,
    interval_seconds=0.5,
    patience_seconds=2.0,
    stop_seconds=1.0,
)


def supervise(place, on_told=lambda _: None):
    """Wait for the run's record, which may be written later; return how the run ended."""
    storage, service = open_storage(place), TrainingService()
    while storage.head("run.json") is None:
        time.sleep(0.02)
    return Supervisor(service, read_record(storage), storage, open_storage, times=TIMES, on_told=on_told).run()


def tell(event):
    if isinstance(event, Decided):
        action = event.action
        word = type(action).__name__.lower()
        more = action.outcome if isinstance(action, End) else action.is_spot if isinstance(action, Submit) else action
        print(word, event.job_name, more, flush=True)
    else:
        print("looked", flush=True)


if __name__ == "__main__":
    print("ready", flush=True)
    supervise(sys.argv[1], tell)
