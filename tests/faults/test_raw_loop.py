"""The plain loop of the examples, killed as it runs, ends as an undisturbed run: losses, means, weights, checkpoint."""

from functools import partial

import pytest
from killed_programs import EXAMPLES, Programs, check_kills, difference_at_end, remembered, run_killed, start, told

from spotproof.checkpoint import newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.events import AttemptEnded, NoticeReceived
from spotproof.storage import LocalStorage

PROGRAM = EXAMPLES / "raw_pytorch" / "train.py"
SAVES = ("--save-every", "7")
EPOCH = 15  # steps
SIGTERM, INTERRUPTED = 15, 143

KILLS = {
    # name: kills one after another, each with the step that the attempt after it goes on from
    "before the first step": [({"saved": 0}, 0)],
    "in the first step": [({"at": "step 1 "}, 0)],
    "twice": [({"at": "step 20 "}, 14), ({"at": "step 50 "}, 49)],
    "twice in the same place": [({"at": "step 20 "}, 14), ({"at": "step 20 "}, 14)],
    "while a save is written": [({"save": 21}, None)],
    "at a save": [({"saved": 21}, 21)],
    "in the last step of an epoch": [({"at": f"step {EPOCH} "}, 14)],
    "in validation": [({"at": "epoch 1 "}, 28)],
    "in the last validation": [({"at": "epoch 3 "}, 56)],
    "during the resume": [({"at": "step 20 "}, 14), ({"at": "from step"}, 14)],
}
WITH_WORKERS = ("twice", "at a save", "in the last step of an epoch", "during the resume")
CASES = [(name, 0) for name in KILLS] + [(name, 2) for name in WITH_WORKERS]


@pytest.fixture(scope="module")
def programs():
    """A process that forks runs."""
    process = Programs("torch._dynamo", "sklearn.datasets")
    yield process
    process.close()


@pytest.fixture(scope="module")
def undisturbed(programs, tmp_path_factory):
    """Give the output and the folder of an undisturbed run; made once for each number of workers."""
    return remembered(programs, PROGRAM, tmp_path_factory, lambda workers: ("--workers", str(workers), *SAVES))


@pytest.mark.parametrize(("name", "workers"), CASES)
def test_a_kill_leaves_no_trace(programs, undisturbed, tmp_path, name, workers):
    """Every loss, every mean of an epoch, and at the end everything that was registered."""
    run = partial(programs.run, PROGRAM, tmp_path, "--workers", str(workers), *SAVES)

    check_kills(run, KILLS[name], undisturbed(workers), tmp_path)


@pytest.mark.parametrize(
    "forgotten",
    [
        "spotproof.checkpoint.rng:RngState.load_state_dict",
        "spotproof.checkpoint.position:LoaderPosition.load_state_dict",
        "torch.amp:GradScaler.load_state_dict",
        "torch.optim.lr_scheduler:LRScheduler.load_state_dict",
    ],
)
def test_forgetting_something_is_found(programs, undisturbed, tmp_path, forgotten):
    """The comparison bites: without one of the parts the end is another."""
    base, base_folder = undisturbed(0)
    run = partial(programs.run, PROGRAM, tmp_path, *SAVES)
    killed = run_killed(run, [({"at": "step 50 "}, 49)], mutate=forgotten)

    assert killed != told(base) or difference_at_end(base_folder, tmp_path) is not None


@pytest.mark.parametrize(
    ("at", "step", "workers"),
    [("from step", 1, 0), ("step 15 ", 15, 0), ("step 20 ", 20, 2), ("epoch 1 ", 31, 0)],
)
def test_a_notice_saves_the_step(programs, undisturbed, tmp_path, at, step, workers):
    """The step under way is finished and saved, the process leaves with 143, and the rest is exact."""
    base, _ = undisturbed(workers)
    args = ("--workers", str(workers), "--save-every", "1000")
    first = programs.run(PROGRAM, tmp_path, *args, kill={"at": at, "signal": SIGTERM}, exit_code=INTERRUPTED)
    storage = LocalStorage(tmp_path / "checkpoints")

    assert newest_verified(storage).step == step
    events = list(read_events(storage, 0))
    assert [event.step for event in events if isinstance(event, NoticeReceived)] == [step]
    assert [event.outcome for event in events if isinstance(event, AttemptEnded)] == ["notice"]
    last = programs.run(PROGRAM, tmp_path, *args)
    assert start(last) == step
    assert {**told(first), **told(last)} == told(base)


def test_a_finished_run_is_not_run_again(programs, undisturbed, tmp_path):
    """Started once more it resumes at its end, does nothing, and leaves the checkpoint that there is."""
    base, folder = undisturbed(0)
    storage = LocalStorage(folder / "checkpoints")
    before = newest_verified(storage)
    again = programs.run(PROGRAM, folder, "--workers", "0", *SAVES)

    assert start(again) == before.step
    assert set(told(again)) == {line for line in told(base) if line.startswith("weights")}
    assert newest_verified(storage) == before
