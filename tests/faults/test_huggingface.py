"""Hugging Face's Trainer, killed as it runs, ends as an undisturbed run of the stock Trainer does."""

from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from killed_programs import Programs, difference_at_end, remembered, run_killed, start, told

PROGRAM = Path(__file__).with_name("huggingface_program.py")
SIGTERM, INTERRUPTED = 15, 143

# Saves are made at every fourth step; an epoch has 11 batches.
KILLS = {
    # name: kills one after another, each with the step that the attempt after it goes on from
    "in the first step": [({"at": "step 1 "}, 0)],
    "in a step": [({"at": "step 7 "}, 4)],
    "after a fetch": [({"at": "fetched 10"}, 8)],
    "at a save": [({"saved": 8}, 8)],
    "while a save is written": [({"save": 8}, None)],
    "in the first step of an epoch": [({"at": "step 12 "}, 8)],
    "in evaluation": [({"at": "evaluated at 12"}, 8)],
    "twice": [({"at": "step 7 "}, 4), ({"at": "step 17 "}, 16)],
    "during the resume": [({"at": "step 7 "}, 4), ({"at": "from step"}, 4)],
    "while it is finished": [({"at": "epoch epoch@28 17"}, 28)],
    "at the end": [({"at": "epoch state"}, 28)],
}
CASES = [("plain", name) for name in KILLS] + [
    ("workers", "twice"),
    ("workers", "at a save"),
    ("persistent", "twice"),
    ("accumulation", "at a save"),
    ("accumulation", "in the first step of an epoch"),
    ("max_steps", "twice"),
    ("epochs", "twice"),
    ("best", "in a step"),
    ("best", "twice"),
    ("stream", "in a step"),
    ("sequential", "twice"),
    ("no_limits", "twice"),
]

ALWAYS = {("plain", "in a step"), ("plain", "twice"), ("plain", "in evaluation"), ("plain", "at the end")} | {
    ("persistent", "twice"),
    ("accumulation", "in the first step of an epoch"),
    ("best", "twice"),
    ("stream", "in a step"),
}


def marked(case):
    """Return the case, marked as slow unless it is always run."""
    return pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.slow)


@pytest.fixture(scope="module")
def programs():
    """A process that forks runs."""
    process = Programs("torch._dynamo", "transformers.trainer", "transformers.models.bert.modeling_bert")
    yield process
    process.close()


@pytest.fixture(scope="module")
def undisturbed(programs, tmp_path_factory):
    """Give the output and the folder of an undisturbed run; made once for each scenario."""
    return remembered(programs, PROGRAM, tmp_path_factory, lambda scenario: (scenario,))


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(name, marks=() if name == "plain" else pytest.mark.slow)
        for name in sorted({scenario for scenario, _ in CASES})
    ],
)
def test_it_trains_as_the_stock_trainer_does(programs, undisturbed, tmp_path, scenario):
    """Undisturbed: same samples, losses, rates, logs, evaluations, weights and random numbers."""
    base, _ = undisturbed(scenario)
    stock = programs.run(PROGRAM, tmp_path, scenario, "stock")

    assert told(base) == told(stock)


@pytest.mark.parametrize(("scenario", "name"), map(marked, CASES))
def test_a_kill_leaves_no_trace(programs, undisturbed, tmp_path, scenario, name):
    """Ids and losses of every step, logs, evaluations, the Trainer's state, weights, and the last checkpoint."""
    base, base_folder = undisturbed(scenario)
    run = partial(programs.run, PROGRAM, tmp_path, scenario)

    assert run_killed(run, KILLS[name]) == told(base)
    assert difference_at_end(base_folder, tmp_path) is None


@pytest.mark.parametrize(
    "forgotten",
    [
        "spotproof.checkpoint.rng:RngState.load_state_dict",
        "spotproof.huggingface._fetches:Fetches.go_on",
        "spotproof.huggingface._run:load_generators",
        "torch.optim.lr_scheduler:LambdaLR.load_state_dict",
    ],
)
def test_forgetting_something_is_found(programs, undisturbed, tmp_path, forgotten):
    """The comparison bites: without one of the parts the end is another."""
    base, _ = undisturbed("plain")
    run = partial(programs.run, PROGRAM, tmp_path, "plain")

    assert run_killed(run, [({"at": "step 11 "}, 8)], mutate=forgotten) != told(base)


@pytest.mark.parametrize(
    ("at", "step"),
    [
        ("step 6 ", 6),
        ("fetched 10", 11),
        pytest.param("evaluated at 12", 12, marks=pytest.mark.slow),
        pytest.param("step 11 ", 11, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_notice_saves_the_step(programs, undisturbed, tmp_path, at, step):
    """The step under way is finished and saved, the process leaves with 143, and the rest is exact."""
    base, _ = undisturbed("workers")
    first = programs.run(PROGRAM, tmp_path, "workers", kill={"at": at, "signal": SIGTERM}, exit_code=INTERRUPTED)
    last = programs.run(PROGRAM, tmp_path, "workers")

    assert start(last) == step
    assert {**told(first), **told(last)} == told(base)
