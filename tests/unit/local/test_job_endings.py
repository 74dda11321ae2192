"""How a job ends, step by step: the sequences that the property test only bounds."""

import pytest

from spotproof.local import events as ev
from spotproof.local.state import JobState
from spotproof.local.statuses import JobRules


def begin(*, num_hosts=1, is_spot=True, max_run=100, max_wait=200, **rules):
    rules = JobRules(
        num_hosts=num_hosts,
        is_spot=is_spot,
        max_run_seconds=max_run,
        max_wait_seconds=max_wait if is_spot else None,
        **rules,
    )
    state = JobState(rules, 0.0)
    assert state.start() == [ev.RequestCapacity(0)]
    return state


def train(state, at=1.0):
    assert state.handle(ev.CapacityFound(at, state.attempt)) == [ev.Prepare(state.attempt)]
    assert state.handle(ev.Prepared(at, state.attempt)) == [ev.Start(state.attempt)]


def statuses(state):
    return [item.status for item in state.transitions]


def test_a_job_that_never_gets_capacity_ends_with_max_wait():
    """Starting; Stopped with MaxWaitTimeExceeded; no time was trained or billed."""
    state = begin()
    assert state.deadline == 200
    assert state.handle(ev.TimePassed(199.9)) == []
    assert state.handle(ev.TimePassed(200)) == [ev.Discard(0)]
    assert (state.status, state.secondary) == ("Stopped", "MaxWaitTimeExceeded")
    assert statuses(state) == ["Starting", "Stopping", "MaxWaitTimeExceeded"]
    assert state.training_seconds(300) is None


def test_max_wait_while_training_is_a_stop():
    """SIGTERM, SIGKILL after 120 s, Uploading, Stopped with MaxWaitTimeExceeded."""
    state = begin(max_run=200)
    train(state, at=150)
    assert state.handle(ev.TimePassed(200)) == [ev.Terminate(0)]
    assert state.deadline == 320
    assert state.handle(ev.TimePassed(320)) == [ev.Kill(0, keep_files=True)]
    assert state.handle(ev.HostsGone(321, 0)) == [ev.Upload(0, has_model=True)]
    assert state.handle(ev.Uploaded(322, 0)) == [ev.Discard(0)]
    assert statuses(state)[-3:] == ["Stopping", "Uploading", "MaxWaitTimeExceeded"]


def test_running_time_adds_up_over_attempts():
    """MaxRuntime counts the running of all attempts, and not the wait between them; so does the training time."""
    state = begin()
    train(state, at=10)
    state.handle(ev.ReclaimDue(70, 0, 0))
    state.handle(ev.HostsGone(71, 0))
    train(state, at=100)
    assert state.deadline == 140
    assert state.training_seconds(130) == 90
    assert state.billable_seconds(130) == 27


def test_a_server_that_was_last_seen_before_the_last_transition_counts_until_then():
    """The pulse is older than what the store has: the machines lived at least as long as the job's last transition."""
    state = begin()
    state.handle(ev.CapacityFound(10, 0))
    state.handle(ev.Prepared(30, 0))
    state.handle(ev.ServerLost(100, 12, has_files=False))
    assert statuses(state)[-2:] == ["Interrupted", "Starting"]
    assert [item.start_at for item in state.transitions[-2:]] == [30, 100]
    assert state.training_seconds(100) == 20


def test_a_reclaim_loses_the_files_and_an_end_keeps_them():
    """Kill says whether what is on the hosts may still be uploaded."""
    state = begin()
    train(state)
    assert state.handle(ev.ReclaimDue(2, 0, 0)) == [ev.Kill(0, keep_files=False)]
    assert state.secondary == "Interrupted"
    assert state.handle(ev.HostsGone(3, 0)) == [ev.Discard(0), ev.RequestCapacity(1)]
    train(state)
    assert state.handle(ev.HostExited(9, 1, 0, 0, "")) == [ev.Kill(1, keep_files=True)]


def test_a_stop_during_a_reclaims_grace_uploads_nothing():
    """Capacity that is promised away is gone at the end of its grace, whoever asked for what meanwhile."""
    state = begin()
    train(state)
    assert state.handle(ev.ReclaimDue(2, 0, 30)) == [ev.Terminate(0)]
    assert state.handle(ev.StopRequested(3)) == [ev.Terminate(0)]
    assert state.deadline == 32
    assert state.handle(ev.TimePassed(32)) == [ev.Kill(0, keep_files=False)]
    assert state.handle(ev.HostsGone(33, 0)) == [ev.Discard(0)]
    assert (state.status, "Uploading" in statuses(state)) == ("Stopped", False)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_whoever_leaves_in_the_grace_is_restarted(code):
    """An exit after the notice is the interruption, whatever its code."""
    state = begin()
    train(state)
    state.handle(ev.ReclaimDue(2, 0, 120))
    assert state.handle(ev.HostExited(5, 0, 0, code, "text")) == [ev.Kill(0, keep_files=False)]
    state.handle(ev.HostsGone(6, 0))
    assert (state.secondary, state.attempt, state.failure_reason) == ("Starting", 1, None)


def test_one_failing_host_ends_the_job_and_the_last_good_one_completes_it():
    """The first non-zero exit decides; zero exits are waited for."""
    state = begin(num_hosts=3)
    train(state)
    assert state.handle(ev.HostExited(2, 0, 1, 0, "")) == []
    assert state.handle(ev.HostExited(3, 0, 2, 9, "why")) == [ev.Kill(0, keep_files=True)]
    assert state.handle(ev.HostExited(4, 0, 0, 137, "")) == []
    assert state.handle(ev.HostsGone(5, 0)) == [ev.Upload(0, has_model=False)]
    state.handle(ev.Uploaded(6, 0))
    assert state.failure_reason == "AlgorithmError: why, exit code: 9"


def test_a_stop_while_uploading_ends_stopped():
    """A job that is stopped while its results go up still gets them up."""
    state = begin()
    train(state)
    state.handle(ev.HostExited(2, 0, 0, 0, ""))
    state.handle(ev.HostsGone(3, 0))
    assert state.handle(ev.StopRequested(4)) == []
    assert state.status == "Stopping"
    state.handle(ev.Uploaded(5, 0))
    assert state.status == "Stopped"


def test_failures_around_training_say_whose_they_are():
    """What can't be prepared or uploaded ends Failed with the given class of reason; of the first nothing goes up."""
    state = begin()
    state.handle(ev.CapacityFound(1, 0))
    assert state.handle(ev.PreparationFailed(2, 0, "ClientError: Data download failed")) == [
        ev.Kill(0, keep_files=True)
    ]
    assert state.handle(ev.HostsGone(3, 0)) == [ev.Discard(0)]
    assert (state.status, state.failure_reason) == ("Failed", "ClientError: Data download failed")

    state = begin()
    train(state)
    state.handle(ev.HostExited(2, 0, 0, 0, ""))
    state.handle(ev.HostsGone(3, 0))
    assert state.handle(ev.UploadFailed(4, 0, "ClientError: Artifact upload failed")) == [ev.Discard(0)]
    assert state.status == "Failed"


def test_a_job_that_is_pending_too_long_is_stopped():
    """MaxPendingTimeInSeconds ends a job that has never had instances; once it had some it counts no more."""
    state = begin(is_spot=False, max_pending_seconds=50)
    assert state.deadline == 50
    assert state.handle(ev.TimePassed(50)) == [ev.Discard(0)]
    assert (state.status, state.secondary) == ("Stopped", "Stopped")
    assert "MaxPendingTimeInSeconds" in state.transitions[-1].message

    state = begin(is_spot=False, max_run=100, max_pending_seconds=50)
    train(state, at=40)
    assert state.deadline == 140


@pytest.mark.parametrize(
    ("code", "has_files", "ends"),
    [
        (None, True, ["Interrupted", "Starting"]),
        (0, True, ["Training", "Uploading"]),
        (0, False, ["Interrupted", "Starting"]),
        (9, True, ["Training", "Uploading"]),
        (9, False, ["Training", "Failed"]),
    ],
)
def test_what_a_server_finds_after_its_own_end(code, has_files, ends):
    """What ran is interrupted; what had ended is uploaded if its files are there; nothing is Completed without."""
    state = begin()
    train(state)
    if code is not None:
        state.handle(ev.HostExited(5, 0, 0, code, "why"))
    actions = state.handle(ev.ServerLost(50, 7, has_files))
    assert statuses(state)[-2:] == ends
    assert state.training_seconds(50) == 6
    if ends[-1] == "Uploading":
        assert actions == [ev.Upload(0, has_model=code == 0)]
    elif ends[-1] == "Starting":
        assert actions == [ev.Discard(0), ev.RequestCapacity(1)]
    else:
        assert state.failure_reason == "AlgorithmError: why, exit code: 9"


@pytest.mark.parametrize("where", ["downloading", "reclaimed"])
def test_a_server_that_comes_back_uploads_nothing_that_never_was(where):
    """A stopped attempt that never ran, or whose machines were lost, has no files, though its directories are there."""
    state = begin()
    if where == "downloading":
        state.handle(ev.CapacityFound(1, 0))
        assert state.handle(ev.StopRequested(2)) == [ev.Kill(0, keep_files=True)]
    else:
        train(state)
        assert state.handle(ev.ReclaimDue(3, 0, 60.0)) == [ev.Terminate(0)]
        state.handle(ev.StopRequested(4))
    assert not state.has_kept_files
    assert state.handle(ev.ServerLost(50, 7, True)) == [ev.Discard(0)]
    assert (state.status, state.secondary) == ("Stopped", "Stopped")
    assert "Uploading" not in statuses(state)


def test_retries_are_used_up():
    """MaximumRetryAttempts internal errors are followed by another attempt each, interruptions by as many as come."""
    state = begin(max_retries=2)
    for attempt in range(4):
        state.handle(ev.CapacityFound(1, attempt))
        if attempt == 1:
            state.handle(ev.ReclaimDue(2, attempt, 0.0))
        else:
            state.handle(ev.PreparationFailed(2, attempt, "InternalServerError: no host"))
        state.handle(ev.HostsGone(3, attempt))
        assert state.is_terminal == (attempt == 3)
    assert (state.status, state.failure_reason) == ("Failed", "InternalServerError: no host")
