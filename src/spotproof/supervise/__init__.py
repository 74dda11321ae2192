"""Jobs that run: seen as a person wants to see them, and kept to a deadline and a budget.

In: DescribeTrainingJob's answers, logs, events and manifests; a :class:`Goal`. Out: a :class:`JobView` with its alarms;
:func:`decide`'s actions, done by a :class:`Supervisor`. Pure but for :mod:`look`, :mod:`record` and :mod:`supervisor`,
which are shells. Who may import it: ``cli``.
"""

from spotproof.supervise.alarms import Alarm
from spotproof.supervise.billing import running_seconds, spent_usd
from spotproof.supervise.decide import Action, End, Keep, LiveJob, RunState, Stop, Submit, decide
from spotproof.supervise.goal import AWS_TIMES, LOCAL_TIMES, Goal, Machine, Times, check_goal
from spotproof.supervise.look import JobWatcher, Look, StoredCheckpoint
from spotproof.supervise.measure import Measured, RunJob, build_state, measure
from spotproof.supervise.record import RECORD_FOLDER, RunRecord, job_name, read_record, write_record
from spotproof.supervise.supervisor import Away, Decided, Looked, Supervisor, times_of
from spotproof.supervise.view import JobView, build_view, view_to_json

__all__ = [
    "AWS_TIMES",
    "LOCAL_TIMES",
    "RECORD_FOLDER",
    "Action",
    "Alarm",
    "Away",
    "Decided",
    "End",
    "Goal",
    "JobView",
    "JobWatcher",
    "Keep",
    "LiveJob",
    "Look",
    "Looked",
    "Machine",
    "Measured",
    "RunJob",
    "RunRecord",
    "RunState",
    "Stop",
    "StoredCheckpoint",
    "Submit",
    "Supervisor",
    "Times",
    "build_state",
    "build_view",
    "check_goal",
    "decide",
    "job_name",
    "measure",
    "read_record",
    "running_seconds",
    "spent_usd",
    "times_of",
    "view_to_json",
    "write_record",
]
