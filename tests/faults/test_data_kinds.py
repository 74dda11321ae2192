"""Training data of every make: killed anywhere, a run goes on at the very item, with the very random numbers."""

import shutil

import data_kinds
import pytest
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint.journal import read_events
from spotproof.events import Resumed, Warned
from spotproof.storage import LocalStorage

EPOCH = 11  # optimizer steps; some kinds have a few more
WORKERS = {
    "in process": {},
    "2 workers": {"workers": 2},
    "2 that persist": {"workers": 2, "persistent": True},
}
ALWAYS = {
    "in process": ("stateful_unbatched", "itself", "stateless", "loader", "batches", "shortest", "torchdata_stream"),
    "2 workers": ("stateful", "torchdata", "cycled"),
    "2 that persist": ("stateless", "own_generator"),
}
KINDS = [
    pytest.param(name, workers, marks=() if name in ALWAYS[workers] else pytest.mark.slow)
    for workers in WORKERS
    for name in data_kinds.MAKERS
    if workers == "in process" or name not in data_kinds.WITHOUT_WORKERS
]
KILLS = [("training_step", 7), ("on_train_epoch_start", EPOCH)]
IN_A_LATER_PASS = ("training_step", 20)
"""Where workers that persist stand elsewhere than workers that were just started."""
MORE_KILLS = [
    IN_A_LATER_PASS,
    ("training_step", 1),
    ("on_train_batch_end", EPOCH),
    ("validation_step", EPOCH),
    ("training_step", EPOCH + 1),
    ("on_train_batch_end", 18),
    ("on_validation_end", 2 * EPOCH),
]
READ_AGAIN = {"stateless", "batches"}
"""Kinds that know no position, of which a user is told."""


def scenario_of(name, workers, **more):
    """Return a training on data of that kind."""
    scenario = {"data": name, **WORKERS[workers], **more}
    return {**scenario, "trainer": {"limit_train_batches": EPOCH}} if name == "endless" else scenario


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome of a kind without a kill; trained once."""
    outcomes = {}

    def outcome(name, workers):
        if (name, workers) not in outcomes:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert zygote.train(folder, scenario_of(name, workers)) == 0, (folder / "log.txt").read_text()
            outcomes[name, workers] = Outcome(folder)
        return outcomes[name, workers]

    return outcome


def events(folder):
    """Return what all attempts told."""
    storage = LocalStorage(folder / "checkpoints")
    return [event for entry in storage.list("events/") for event in read_events(storage, int(entry.key[-10:-6]))]


def check_kill(zygote, base, folder, scenario, kill):
    """Kill, resume, compare; the resume must have been one, and must have had nothing to complain of."""
    assert zygote.train(folder, scenario, kill=dict(zip(("point", "step"), kill, strict=True))) == -9
    assert zygote.train(folder, scenario) == 0, (folder / "log.txt").read_text()

    assert_same_outcome(base, Outcome(folder))
    (resumed,) = (event.step for event in events(folder) if isinstance(event, Resumed))
    assert resumed >= kill[1] - 3
    said = [event.message for event in events(folder) if isinstance(event, Warned)]
    assert all("can't be saved: a resume" in message for message in said), said
    assert bool(said) == (scenario["data"] in READ_AGAIN)


@pytest.mark.parametrize(("name", "workers"), KINDS)
def test_killed_within_and_between_passes(zygote, undisturbed, tmp_path, name, workers):
    """One kill in the middle of a pass and one at its end leave no trace, nor does one in a later pass."""
    base = undisturbed(name, workers)
    for number, kill in enumerate(KILLS if workers != "2 that persist" else [*KILLS, IN_A_LATER_PASS]):
        check_kill(zygote, base, tmp_path / str(number), scenario_of(name, workers), kill)


@pytest.mark.parametrize(("name", "workers"), KINDS)
def test_the_callback_changes_no_numbers(zygote, undisturbed, tmp_path, name, workers):
    """With and without Spotproof a training sees the same data and draws the same random numbers."""
    scenario = scenario_of(name, workers)
    assert zygote.train(tmp_path, scenario, mutate="no_callback") == 0, (tmp_path / "log.txt").read_text()

    assert_same_outcome(undisturbed(name, workers), Outcome(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kill", MORE_KILLS, ids=lambda kill: "@".join(map(str, kill)))
@pytest.mark.parametrize(("name", "workers"), KINDS)
def test_killed_anywhere(zygote, undisturbed, tmp_path, name, workers, kill):
    """The same at every place of the loop, with a save at each step."""
    for every in (1, 3):
        folder = tmp_path / str(every)
        check_kill(zygote, undisturbed(name, workers), folder, scenario_of(name, workers, every=every), kill)
        shutil.rmtree(folder)


@pytest.mark.slow  # each worker imports all that the training does
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("name", ["stateful", "own_generator"])
def test_workers_that_are_not_forked(zygote, tmp_path, name, method):
    """What goes along with batches, and comes back to workers, does so by pickle, too."""
    scenario = {"data": name, "workers": 2, "start_method": method, "epochs": 2}
    base = tmp_path / "base"
    assert zygote.train(base, scenario) == 0, (base / "log.txt").read_text()
    check_kill(zygote, Outcome(base), tmp_path / "killed", scenario, ("training_step", 7))


@pytest.mark.parametrize("name", ["stateful", "torchdata", "own_generator", "unsized_batches"])
def test_a_finished_run_given_more_epochs(zygote, undisturbed, tmp_path, name):
    """Two epochs and then one more, in another process, end as three in one go."""
    scenario = {"data": name, "workers": 2, "persistent": True}
    assert zygote.train(tmp_path, {**scenario, "epochs": 2}) == 0
    assert zygote.train(tmp_path, scenario) == 0, (tmp_path / "log.txt").read_text()

    assert_same_outcome(undisturbed(name, "2 that persist"), Outcome(tmp_path))
