"""Whatever happens, in whatever order, a job keeps SageMaker's rules."""

import json
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spotproof.contract import STOP_GRACE_SECONDS
from spotproof.local import events as ev
from spotproof.local.state import JobState
from spotproof.local.statuses import SERVER_LOST, JobRules

# What may follow what. Written from the documented sequences, not from the code.
FOLLOWERS = {
    "Starting": {"Downloading", "Stopping"},
    "Downloading": {"Training", "Interrupted", "Stopping", "Failed", "Starting"},
    "Training": {"Interrupted", "Uploading", "Stopping"},
    "Interrupted": {"Starting", "Stopping"},
    # Interrupted: the server ended, and the results with it.
    "Uploading": {"Interrupted", "Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"},
    "Stopping": {"Uploading", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"},
}
PRIMARY = {
    "Completed": "Completed",
    "Failed": "Failed",
    "Stopped": "Stopped",
    "MaxRuntimeExceeded": "Stopped",
    "MaxWaitTimeExceeded": "Stopped",
    "Stopping": "Stopping",
}


class JobMachine(RuleBasedStateMachine):
    """A platform that obeys every action at some time, and a world that sends anything at any time."""

    @initialize(
        num_hosts=st.integers(1, 3),
        is_spot=st.booleans(),
        max_run=st.integers(1, 300),
        extra=st.integers(0, 300),
        factor=st.floats(0.01, 1),
        pending=st.none() | st.integers(1, 300),
        retries=st.integers(0, 3),
    )
    def create(self, num_hosts, is_spot, max_run, extra, factor, pending, retries):
        self.now = 1000.0
        rules = JobRules(
            num_hosts=num_hosts,
            is_spot=is_spot,
            max_run_seconds=max_run,
            max_wait_seconds=max_run + extra if is_spot else None,
            spot_price_factor=factor,
            max_pending_seconds=pending,
            max_retries=retries,
        )
        self.num_server_ends = self.num_failures = 0
        self.state = JobState(rules, self.now)
        self.live = set()  # attempts with processes
        self.with_files = set()  # attempts whose command has run, and whose hosts' files are not lost
        self.owed = []  # (event, attempt) that the platform owes for actions
        self.deadline_of_terminate = None
        self.uploaded = set()
        self.obey(self.state.start())

    def obey(self, actions):
        for action in actions:
            attempt = action.attempt
            match action:
                case ev.RequestCapacity():
                    assert not self.live, "capacity is asked for while an attempt lives"
                    self.owed.append((ev.CapacityFound, attempt))
                case ev.Prepare():
                    assert not self.live, "two attempts live"
                    self.live.add(attempt)
                    self.owed.append((ev.Prepared, attempt))
                case ev.Start():
                    assert attempt in self.live
                    self.with_files.add(attempt)
                case ev.Kill():
                    assert attempt in self.live
                    if not action.keep_files:
                        self.with_files.discard(attempt)
                    self.owed.append((ev.HostsGone, attempt))
                case ev.Upload():
                    assert attempt in self.live
                    assert attempt in self.with_files, "an upload without files"
                    self.owed.append((ev.Uploaded, attempt))
                case ev.Discard():
                    self.live.discard(attempt)
                    self.with_files.discard(attempt)

    def pay(self, index):
        kind, attempt = self.owed.pop(index)
        if kind is ev.Uploaded:
            self.uploaded.add(attempt)
        self.send(kind(self.now, attempt))

    def send(self, event):
        before = (self.state.status, self.state.attempt, len(self.state.transitions))
        is_late = isinstance(event, ev.AttemptEvent) and event.attempt != self.state.attempt
        was_terminal = self.state.is_terminal
        stored = json.loads(json.dumps(self.state.to_document()))
        loaded = JobState.from_document(self.state.rules, stored)
        actions = self.state.handle(event)
        assert loaded.handle(event) == actions, "what was stored and loaded behaves otherwise"
        assert loaded == self.state
        assert loaded.deadline == self.state.deadline
        if is_late or was_terminal:
            assert actions == []
            assert before == (self.state.status, self.state.attempt, len(self.state.transitions))
        self.obey(actions)

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds):
        self.now += seconds
        self.send(ev.TimePassed(self.now))

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def the_platform_obeys(self, data):
        index = data.draw(st.integers(0, len(self.owed) - 1))
        self.pay(index)

    @precondition(lambda self: self.owed)
    @rule()
    def the_platform_obeys_everything(self):
        while self.owed:
            self.pay(0)

    @rule(lateness=st.integers(0, 2), host=st.integers(0, 2), code=st.sampled_from([0, 0, 1, 7, 137, 143]))
    def a_host_exits(self, lateness, host, code):
        self.send(ev.HostExited(self.now, self.state.attempt - lateness, host, code, "text"))

    @rule(lateness=st.integers(0, 2), grace=st.sampled_from([0.0, 0.0, 30.0, 120.0]))
    def a_reclaim_is_due(self, lateness, grace):
        self.send(ev.ReclaimDue(self.now, self.state.attempt - lateness, grace))

    @rule(lateness=st.integers(1, 2))
    def an_old_attempt_speaks(self, lateness):
        attempt = self.state.attempt - lateness
        late = [ev.CapacityFound, ev.Prepared, ev.HostsGone, ev.Uploaded]
        for kind in late:
            self.send(kind(self.now, attempt))
        self.send(ev.UploadFailed(self.now, attempt, "late"))
        self.send(ev.PreparationFailed(self.now, attempt, "late"))

    @rule(kind=st.sampled_from([ev.PreparationFailed, ev.UploadFailed]), is_rare=st.integers(0, 4))
    def something_fails(self, kind, is_rare):
        if is_rare:
            return
        self.send(kind(self.now, self.state.attempt, "ClientError: no"))

    @rule()
    def a_host_cannot_be_made(self):
        attempt = self.state.attempt
        is_due = self.state.secondary == "Downloading" and (ev.Prepared, attempt) in self.owed
        if not is_due or (ev.HostsGone, attempt) in self.owed:
            return
        self.owed.remove((ev.Prepared, attempt))
        self.num_failures += 1
        self.send(ev.PreparationFailed(self.now, attempt, "InternalServerError: no"))

    @rule()
    def there_is_no_capacity(self):
        self.send(ev.CapacityMissing(self.now, self.state.attempt))

    @rule(away=st.floats(0, 60), silent=st.floats(0, 5), has_files=st.booleans(), is_rare=st.booleans())
    def the_server_ends_and_comes_back(self, away, silent, has_files, is_rare):
        if is_rare or self.state.is_terminal:
            return
        before, attempt = self.state.secondary, self.state.attempt
        was_kept = self.state.has_kept_files
        trained = self.state.training_seconds(self.now)
        self.num_server_ends += 1
        lost_at = max(self.state.created_at, self.now - silent)
        self.live.clear()  # all processes are dead
        if not has_files:
            self.with_files.clear()
        self.owed.clear()
        self.now += away
        actions = self.state.handle(ev.ServerLost(self.now, lost_at, has_files))
        uploads = [action for action in actions if isinstance(action, ev.Upload)]
        if uploads:
            assert was_kept
            assert self.state.secondary == "Uploading"
            self.live.add(attempt)
        self.obey(actions)
        if before != "Starting" and not self.state.is_terminal and not uploads:
            assert self.state.attempt == attempt + 1
        if self.state.training_seconds(self.now) is not None and trained is not None:
            assert self.state.training_seconds(self.now) <= trained + 1, "time without a server was counted as training"

    @rule(is_rare=st.integers(0, 4))
    def the_user_stops(self, is_rare):
        if is_rare:
            return
        self.send(ev.StopRequested(self.now))

    @invariant()
    def statuses_follow_the_documented_order(self):
        statuses = [item.status for item in self.state.transitions]
        assert statuses[0] == "Starting"
        for before, after in pairwise(statuses):
            # What a program that failed had left is lost with the server: there is nothing to upload.
            is_lost = (before, after) == ("Training", "Failed") and self.num_server_ends
            assert after in FOLLOWERS[before] or is_lost, statuses
        last = statuses[-1]
        if last in PRIMARY:
            assert self.state.status == PRIMARY[last]
        else:
            assert self.state.status in ("InProgress", "Stopping")

    @invariant()
    def times_are_in_order_and_messages_are_there(self):
        transitions = self.state.transitions
        for before, after in pairwise(transitions):
            assert before.start_at <= before.end_at == after.start_at
        assert all(item.message for item in transitions)
        assert (transitions[-1].end_at is not None) == self.state.is_terminal

    @invariant()
    def at_most_one_attempt_lives(self):
        assert self.live <= {self.state.attempt}

    @invariant()
    def billable_never_exceeds_training(self):
        training, billable = self.state.training_seconds(self.now), self.state.billable_seconds(self.now)
        if training is not None:
            assert 1 <= billable <= training <= self.now - self.state.created_at + 1
            if not self.state.rules.is_spot:
                assert billable == training

    @invariant()
    def attempts_have_a_cause(self):
        """An interruption or a retry begins each attempt; on demand, only a server's end interrupts."""
        interruptions = [item for item in self.state.transitions if item.status == "Interrupted"]
        # Its message tells of missing capacity later.
        retries = [
            now
            for before, now in pairwise(self.state.transitions)
            if before.status == "Downloading" and now.status == "Starting"
        ]
        assert len(retries) <= self.state.rules.max_retries
        if not self.state.rules.is_spot:
            assert all(item.message == SERVER_LOST for item in interruptions)
            assert len(interruptions) <= self.num_server_ends
        assert self.state.attempt in (len(interruptions) + len(retries), len(interruptions) + len(retries) - 1)

    @invariant()
    def completed_means_uploaded(self):
        if self.state.status == "Completed":
            assert self.state.transitions[-2].status == "Uploading"
            assert self.state.attempt in self.uploaded

    @invariant()
    def failures_have_reasons(self):
        assert (self.state.failure_reason is not None) == (self.state.status == "Failed")

    def teardown(self):
        """Every job ends: obeying what is owed and letting time pass is enough."""
        if not hasattr(self, "state"):
            return
        for _ in range(50):
            if self.state.is_terminal:
                break
            while self.owed:
                self.pay(0)
            self.now += STOP_GRACE_SECONDS + 600
            self.send(ev.TimePassed(self.now))
        assert self.state.is_terminal, [item.status for item in self.state.transitions]
        assert self.live == set(), "hosts are left after the end"
        self.statuses_follow_the_documented_order()


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
