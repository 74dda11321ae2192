"""SpotLoop: what a loop of one's own is told, when it is saved, and what its attempts leave behind."""

import logging
import os
import random
import signal
import threading

import pytest
import torch

from spotproof.checkpoint import newest_verified, resumable_loader
from spotproof.checkpoint.journal import read_events
from spotproof.errors import SpecError, UnsafeState
from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    IntervalTuned,
    NoticeReceived,
    Progress,
    Resumed,
)
from spotproof.loop import SpotLoop
from spotproof.storage import LocalStorage


def events(folder, attempt, kind):
    return [event for event in read_events(LocalStorage(folder), attempt) if isinstance(event, kind)]


def train(folder, steps, *, num_steps=10, each=lambda step: None, **options):
    """Train a tiny model for the steps that are left, waiting for each save; return the weights at the end."""
    torch.manual_seed(3)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    data = torch.randn(8, 3)
    loader = resumable_loader(torch.utils.data.DataLoader(data, batch_size=2, shuffle=True))
    with SpotLoop(folder, **{"every_n_steps": 3, "every_n_seconds": None, **options}) as spot:
        for name, part in (("model", model), ("optimizer", optimizer), ("loader", loader)):
            spot.register(name, part)
        step = spot.begin()
        steps.append(step)
        while step < num_steps:
            for batch in loader:
                loss = (model(batch) * (1 + random.random())).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                spot.checkpointer.wait()
                each(step)
                spot.step_done(step, epoch=step // 4)
                if step == num_steps:
                    break
    return model.weight.detach().clone()


def begin(folder, part, work=lambda spot: None):
    """Begin with one part, do *work*, and end; return the step that was gone on from."""
    with SpotLoop(folder, every_n_steps=1, every_n_seconds=None) as spot:
        spot.register("part", part)
        step = spot.begin()
        work(spot)
    return step


def test_it_saves_when_it_is_due(tmp_path):
    """At first, every third step, and at the end; the report finds steps, epochs and the end."""
    train(tmp_path, [], keep=5)

    assert [event.step for event in events(tmp_path, 0, CheckpointCommitted)] == [0, 3, 6, 9, 10]
    assert [event.outcome for event in events(tmp_path, 0, AttemptEnded)] == ["finished"]
    assert events(tmp_path, 0, Progress)[0].step == 0
    assert events(tmp_path, 0, AttemptStarted)[0].config["every_n_steps"] == 3


def test_it_goes_on_from_the_last_save(tmp_path):
    """An error ends the attempt, and is told apart from an interruption; the next one ends as an undisturbed one."""
    random.seed(1)
    base = train(tmp_path / "base", [])

    def fail(step):
        if step == 8:
            raise RuntimeError("a bug")

    random.seed(1)
    steps = []
    with pytest.raises(RuntimeError, match="a bug"):
        train(tmp_path / "failed", steps, each=fail)
    weights = train(tmp_path / "failed", steps)

    assert steps == [0, 6]
    assert torch.equal(weights, base)
    assert [event.outcome for event in events(tmp_path / "failed", 0, AttemptEnded)] == ["error"]
    assert [event.step for event in events(tmp_path / "failed", 1, Resumed)] == [6]


def test_auto_learns_what_a_save_costs(tmp_path):
    """The interval is tuned as in Lightning: the decision is an event, with what was measured."""
    train(tmp_path, [], num_steps=400, every_n_steps=None, every_n_seconds="auto", overhead_budget=0.5)

    tuned = events(tmp_path, 0, IntervalTuned)
    assert tuned
    assert tuned[-1].stall_seconds > 0


def test_a_notice_saves_the_step_and_leaves(tmp_path):
    """With the exit code of interruptions; the handler before is the handler again."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        train(tmp_path, [], each=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None)

    assert left.value.code == 143
    assert newest_verified(LocalStorage(tmp_path)).step == 5
    assert [(event.signal, event.step) for event in events(tmp_path, 0, NoticeReceived)] == [("SIGTERM", 5)]
    assert [event.outcome for event in events(tmp_path, 0, AttemptEnded)] == ["notice"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_notice_after_the_last_step_saves_the_end(tmp_path):
    """What the loop did after its last step is in the checkpoint, and the next attempt has nothing left to do."""
    counter = torch.nn.Linear(1, 1)

    def work(spot):
        spot.step_done(1)
        torch.nn.init.constant_(counter.weight, 7)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        begin(tmp_path, counter, work)
    torch.nn.init.zeros_(counter.weight)
    assert begin(tmp_path, counter) == 1
    assert counter.weight.item() == 7
    assert [event.step for event in events(tmp_path, 1, CheckpointCommitted)] == []


def test_outside_the_main_thread_it_is_deaf_and_says_so(tmp_path, caplog):
    """Once; saves go on."""
    caplog.set_level(logging.WARNING)
    thread = threading.Thread(target=train, args=(tmp_path, []))
    thread.start()
    thread.join()

    assert caplog.text.count("training runs outside the main thread") == 1
    assert newest_verified(LocalStorage(tmp_path)).step == 10


def test_a_state_that_can_not_be_saved_is_refused_at_once(tmp_path):
    """Before the first step."""

    class Opaque:
        def state_dict(self):
            return {"it": self}

        def load_state_dict(self, state):
            pass

    with pytest.raises(UnsafeState, match="part/it"):
        begin(tmp_path, Opaque())


def test_the_order_of_calls_is_checked(tmp_path):
    """Steps before the beginning, and parts after it, are mistakes."""
    spot = SpotLoop(tmp_path, notices=[])
    with pytest.raises(SpecError, match="before begin"):
        spot.step_done(1)
    spot.begin()
    with pytest.raises(SpecError, match="after begin"):
        spot.register("late", torch.nn.Linear(1, 1))
    spot.end()


@pytest.mark.parametrize(
    "options", [{"every_n_steps": 0}, {"every_n_seconds": None}, {"keep": 1}, {"overhead_budget": 2}], ids=str
)
def test_impossible_settings_are_refused(tmp_path, options):
    """As those of the callback are."""
    with pytest.raises(SpecError):
        SpotLoop(tmp_path, **options)
