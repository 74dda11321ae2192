"""A notice, wherever it falls: the last completed step is durable, the process gone, and the resumed run exact."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from outcomes import Outcome, assert_same_outcome

from spotproof.checkpoint import newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.events import AttemptEnded, CheckpointCommitted, NoticeReceived, Resumed, Warned
from spotproof.storage import LocalStorage

EPOCH = 11  # optimizer steps
SIGTERM, SIGUSR1 = 15, 10
INTERRUPTED = 143

SCENARIOS = {
    "plain": {},
    "two_workers": {"workers": 2},
    "mid_epoch_validation": {"val_check_interval": 4, "workers": 2, "val_workers": 1},
    "averaged_weights": {"callbacks": ["moving average"]},
    "accumulation": {"accumulate": 4},
    "manual": {"manual": True},
    "starting": {"sampler": "starting"},
    "two_loaders": {"combined": "max_size_cycle"},
}
for scenario in SCENARIOS.values():
    scenario.update(epochs=2, every=100)  # no other save would do instead of the one at the notice
CASES = {
    # name: scenario, kill, the step that the next attempt resumes from, if any
    "in set-up": ("plain", {"point": "setup", "step": 0, "hangs": True}, None),
    "in the sanity check": ("plain", {"point": "sanity_check", "step": 0, "hangs": True}, None),
    "while loaders start": ("starting", {"point": "iter", "step": 0, "hangs": True}, None),
    "in a step": ("plain", {"point": "training_step", "step": 5}, 6),
    "in an epoch's last step": ("plain", {"point": "training_step", "step": 10}, 11),
    "in validation": ("plain", {"point": "validation_step", "step": 11}, 11),
    "in validation within an epoch": ("mid_epoch_validation", {"point": "validation_step", "step": 8}, 8),
    "in validation with averaged weights": ("averaged_weights", {"point": "validation_step", "step": 11}, 11),
    "in validation, optimizing by hand": ("manual", {"point": "validation_step", "step": 5}, 5),
    "after validation": ("two_workers", {"point": "on_validation_end", "step": 11}, 11),
    "between epochs": ("two_workers", {"point": "on_train_epoch_end", "step": 11}, 11),
    "waiting for a batch": ("plain", {"point": "fetch", "step": 22 + 4 * 4 + 2, "hangs": True}, 4),
    "waiting for workers": ("two_workers", {"point": "fetch", "step": 22 + 4 * 2 + 3, "hangs": True, "batches": 4}, 4),
    "waiting for two loaders": ("two_loaders", {"point": "fetch", "step": 22 + 4 * 4 + 1, "hangs": True}, 4),
    "while gradients wait": ("accumulation", {"point": "on_train_batch_start", "step": 1}, 1),
    "waiting while gradients wait": ("accumulation", {"point": "fetch", "step": 22 + 4 * 6 + 1, "hangs": True}, 1),
    "at the end": ("plain", {"point": "on_train_end", "step": 22}, 22),
}


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the outcome of a scenario without a notice; trained once."""
    outcomes = {}

    def outcome(name):
        if name not in outcomes:
            folder = tmp_path_factory.mktemp(name)
            assert zygote.train(folder, SCENARIOS[name]) == 0, (folder / "log.txt").read_text()
            outcomes[name] = Outcome(folder)
        return outcomes[name]

    return outcome


def events(folder, attempt=0, kind=object):
    """Return what an attempt told."""
    return [event for event in read_events(LocalStorage(folder / "checkpoints"), attempt) if isinstance(event, kind)]


def log(folder):
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(("name", "kill", "step"), CASES.values(), ids=CASES)
def test_a_notice_anywhere(zygote, undisturbed, tmp_path, name, kill, step):
    """The process leaves with 143, from whatever it waits for, with its last step saved; the next attempt is exact."""
    base = undisturbed(name)

    code = zygote.train(tmp_path, SCENARIOS[name], kill={"signal": SIGTERM, **kill})

    assert code == INTERRUPTED, log(tmp_path)
    newest = newest_verified(LocalStorage(tmp_path / "checkpoints"))
    if step is None:
        assert newest is None
        assert "nothing was trained yet" in log(tmp_path)
    else:
        (notice,) = events(tmp_path, kind=NoticeReceived)
        assert ("SIGTERM", step) == (notice.signal, notice.step)
        assert newest.step == step
        assert [event.outcome for event in events(tmp_path, kind=AttemptEnded)] == ["notice"]
    assert zygote.train(tmp_path, SCENARIOS[name]) == 0, log(tmp_path)
    assert_same_outcome(base, Outcome(tmp_path))
    if step is not None:
        assert [event.step for event in events(tmp_path, 1, Resumed)] == [step]


def test_validation_is_left_between_two_of_its_batches(zygote, tmp_path):
    """After a notice in the first batch of a validation there is no second one."""
    kill = {"point": "validation_step", "step": 11, "signal": SIGTERM}
    assert zygote.train(tmp_path, SCENARIOS["plain"], kill=kill) == INTERRUPTED

    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [line[3] for line in lines if line[0] == "val"] == [0]


def test_a_second_notice_while_leaving_changes_nothing(zygote, undisturbed, tmp_path):
    """SIGTERM again at each write of the last save: it is durable nevertheless, and the exit code the same."""
    kill = {"point": "training_step", "step": 5, "signal": SIGTERM}
    code = zygote.train(tmp_path, SCENARIOS["plain"], kill=kill, fault={"kind": "second notice"})

    assert code == INTERRUPTED, log(tmp_path)
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 6
    assert len(events(tmp_path, kind=NoticeReceived)) == 1


def test_with_too_little_grace_no_save_is_begun(zygote, undisturbed, tmp_path):
    """No time for a save: none is made, the process leaves, and says which checkpoint there is."""
    kill = {"point": "training_step", "step": 5, "signal": SIGTERM}
    scenario = {**SCENARIOS["plain"], "every": 4}
    assert zygote.train(tmp_path, scenario, kill=kill, spot={"grace_seconds": 0}) == INTERRUPTED, log(tmp_path)

    assert [event.step for event in events(tmp_path, kind=CheckpointCommitted)] == [0, 4]
    (warned,) = events(tmp_path, kind=Warned)
    assert "step 6 is not saved, because a save takes" in warned.message
    assert "The newest checkpoint is that of step 4; leaving." in warned.message
    assert warned.message in log(tmp_path)
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0
    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_a_save_that_hangs_is_waited_for_as_long_as_the_grace_lasts(zygote, tmp_path):
    """The disk does not answer any more: the process leaves all the same, before it is killed."""
    kill = {"point": "training_step", "step": 5, "signal": SIGTERM}
    spot, fault = {"grace_seconds": 0.5}, {"kind": "hangs when leaving"}
    scenario = {**SCENARIOS["plain"], "every": 4}
    assert zygote.train(tmp_path, scenario, kill=kill, spot=spot, fault=fault) == INTERRUPTED

    assert "step 6 is not saved, because the grace of 0.5 s ran out" in log(tmp_path)
    assert newest_verified(LocalStorage(tmp_path / "checkpoints")).step == 4


def test_a_last_save_that_fails_is_said(zygote, undisturbed, tmp_path):
    """The disk is full when it matters: the exit code still tells an interruption, the message what is left."""
    kill = {"point": "training_step", "step": 5, "signal": SIGTERM}
    scenario = {**SCENARIOS["plain"], "every": 4}
    assert zygote.train(tmp_path, scenario, kill=kill, fault={"kind": "full when leaving"}) == INTERRUPTED

    assert "step 6 is not saved, because it could not be written. The newest checkpoint is that of" in log(tmp_path)
    assert "No space left on device" in log(tmp_path)
    assert [event.outcome for event in events(tmp_path, kind=AttemptEnded)] == ["notice"]
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0
    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_slurms_early_signal(zygote, undisturbed, tmp_path):
    """SIGUSR1 in a Slurm job: saved as after SIGTERM, queued again, and Lightning's own way of doing so stays out."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    env = {
        **{"SLURM_JOB_ID": "12", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"},
        **{"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    }
    kill = {"point": "training_step", "step": 5, "signal": SIGUSR1}

    assert zygote.train(tmp_path, SCENARIOS["plain"], kill=kill, env=env) == INTERRUPTED, log(tmp_path)

    assert "SLURM auto-requeueing enabled" in log(tmp_path)  # Lightning knows where it is, and would do it its way
    assert "SIGUSR1: step 6 is saved, leaving." in log(tmp_path)
    assert (tmp_path / "asked").read_text() == "requeue 12\n"
    assert not list(tmp_path.rglob("*.ckpt"))
    assert zygote.train(tmp_path, SCENARIOS["plain"], env=env) == 0, log(tmp_path)
    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))


def test_slurm_is_not_asked_for_more_after_a_cancellation(zygote, tmp_path):
    """SIGTERM in a Slurm job is scancel or a preemption: saved, but not queued again."""
    env = {"SLURM_JOB_ID": "12", "PATH": "/nowhere"}
    kill = {"point": "training_step", "step": 5, "signal": SIGTERM}

    assert zygote.train(tmp_path, SCENARIOS["plain"], kill=kill, env=env) == INTERRUPTED

    assert "step 6 is saved" in log(tmp_path)
    assert "queued again" not in log(tmp_path)


@pytest.fixture
def metadata(tmp_path):
    """A metadata service that announces the end of the instance once four batches were trained."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            self.answer(200, b"token")

        def do_GET(self):
            trace = tmp_path / "trace.jsonl"
            is_time = trace.exists() and trace.read_text().count('["batch"') >= 4
            self.answer(200, b'{"action": "stop"}') if is_time else self.answer(404, b"")

        def answer(self, status, body):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_metadata_service_wakes_a_waiting_training(zygote, undisturbed, metadata, tmp_path):
    """The notice comes without any signal, while the loader hangs: the training leaves it and saves."""
    hang = {"point": "fetch", "step": 22 + 4 * 4 + 2, "signal": 0, "hangs": True}
    machine = {"env": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}, "fault": {"kind": "impatient"}}

    code = zygote.train(tmp_path, SCENARIOS["plain"], kill=hang, spot={"notices": ["sigterm", "ec2"]}, **machine)

    assert code == INTERRUPTED, log(tmp_path)
    assert "EC2 stop: step 4 is saved, leaving." in log(tmp_path)
    assert zygote.train(tmp_path, SCENARIOS["plain"]) == 0
    assert_same_outcome(undisturbed("plain"), Outcome(tmp_path))
