"""The Lightning Fabric loop of the examples, killed as it runs, ends as an undisturbed run."""

from functools import partial

import pytest
from killed_programs import EXAMPLES, Programs, check_kills, remembered, run_killed, start, told

PROGRAM = EXAMPLES / "fabric" / "train.py"
SAVES = ("--save-every", "6")
EPOCH = 14  # steps of two batches each
SIGTERM, INTERRUPTED = 15, 143

KILLS = {
    # name: kills one after another, each with the step that the attempt after it goes on from
    "in the first step": [({"at": "step 1 "}, 0)],
    "at a save": [({"saved": 18}, 18)],
    "while a save is written": [({"save": 18}, None)],
    "in the last step of an epoch": [({"at": f"step {EPOCH} "}, 12)],
    "twice": [({"at": "step 17 "}, 12), ({"at": "step 44 "}, 42)],
    "during the resume": [({"at": "step 17 "}, 12), ({"at": "from step"}, 12)],
}
WITH_WORKERS = ("in the first step", "at a save", "twice")
CASES = [(name, 0) for name in KILLS] + [(name, 2) for name in WITH_WORKERS]


@pytest.fixture(scope="module")
def programs():
    """A process that forks runs."""
    process = Programs("torch._dynamo", "sklearn.datasets", "lightning")
    yield process
    process.close()


@pytest.fixture(scope="module")
def undisturbed(programs, tmp_path_factory):
    """Give the output and the folder of an undisturbed run; made once for each number of workers."""
    return remembered(programs, PROGRAM, tmp_path_factory, lambda workers: ("--workers", str(workers), *SAVES))


@pytest.mark.parametrize(("name", "workers"), CASES)
def test_a_kill_leaves_no_trace(programs, undisturbed, tmp_path, name, workers):
    """Every loss and learning rate, and at the end everything that was registered."""
    run = partial(programs.run, PROGRAM, tmp_path, "--workers", str(workers), *SAVES)

    check_kills(run, KILLS[name], undisturbed(workers), tmp_path)


def test_forgetting_the_generators_is_found(programs, undisturbed, tmp_path):
    """The comparison bites."""
    base, _ = undisturbed(0)
    run = partial(programs.run, PROGRAM, tmp_path, *SAVES)
    forgotten = "spotproof.checkpoint.rng:RngState.load_state_dict"

    assert run_killed(run, [({"at": "step 17 "}, 12)], mutate=forgotten) != told(base)


def test_a_notice_saves_the_step(programs, undisturbed, tmp_path):
    """The step under way is finished and saved, the process leaves with 143, and the rest is exact."""
    base, _ = undisturbed(0)
    args = ("--save-every", "1000")
    first = programs.run(PROGRAM, tmp_path, *args, kill={"at": "step 23 ", "signal": SIGTERM}, exit_code=INTERRUPTED)
    last = programs.run(PROGRAM, tmp_path, *args)

    assert start(last) == 23
    assert {**told(first), **told(last)} == told(base)
