"""Our words are AWS's words: literals against botocore's service model."""

from typing import get_args

from botocore.loaders import Loader
from botocore.model import ServiceModel

from spotproof import contract
from spotproof.local.state import JobState
from spotproof.local.statuses import MESSAGES, JobRules
from spotproof.local.validate import _JSON_TYPES

MODEL = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
DESCRIBED = MODEL.operation_model("DescribeTrainingJob").output_shape.members
NOT_OURS = {
    "TrainingJobStatus": {"Deleting"},
    # No longer sent (LaunchingMLInstances, PreparingTrainingStack, DownloadingTrainingImage) or not modelled yet.
    "SecondaryStatus": {
        "LaunchingMLInstances",
        "PreparingTrainingStack",
        "DownloadingTrainingImage",
        "Updating",
        "Restarting",
        "Pending",
    },
}


def test_statuses_are_those_of_the_model():
    """Every status that we may send is in the API model, and we know of each one that we do not send."""
    assert set(get_args(contract.JobStatus)) == set(DESCRIBED["TrainingJobStatus"].enum) - NOT_OURS["TrainingJobStatus"]
    ours = set(get_args(contract.SecondaryStatus))
    assert ours == set(DESCRIBED["SecondaryStatus"].enum) - NOT_OURS["SecondaryStatus"]
    assert set(contract.TERMINAL_STATUSES) < set(get_args(contract.JobStatus))


def test_every_status_has_a_message():
    """SDK v2 reads StatusMessage of every transition without asking whether it is there."""
    assert set(MESSAGES) == set(get_args(contract.SecondaryStatus))
    assert all(MESSAGES.values())


def test_the_failure_reason_is_as_long_as_the_model_allows():
    """FailureReason is cut at the model's maximum, and the exit code stays in it."""
    from spotproof.local import events as ev

    assert DESCRIBED["FailureReason"].metadata["max"] == contract.FAILURE_REASON_MAX_CHARS
    state = JobState(JobRules(num_hosts=1, is_spot=False, max_run_seconds=9, max_wait_seconds=None), 0.0)
    state.start()
    for event in (
        ev.CapacityFound(1, 0),
        ev.Prepared(2, 0),
        ev.HostExited(3, 0, 0, 7, "x" * 5000),
        ev.HostsGone(4, 0),
        ev.Uploaded(5, 0),
    ):
        state.handle(event)
    assert len(state.failure_reason) == contract.FAILURE_REASON_MAX_CHARS
    assert state.failure_reason.startswith("AlgorithmError: xxx")
    assert state.failure_reason.endswith("x, exit code: 7")


def test_the_validator_knows_every_type_of_our_operations():
    """No shape of a request that we validate has a type without a check."""

    def types(shape, seen):
        if shape.name in seen:
            return
        seen.add(shape.name)
        yield shape.type_name
        parts = [*getattr(shape, "members", {}).values()]
        parts += [getattr(shape, name) for name in ("member", "key", "value") if hasattr(shape, name)]
        for part in parts:
            yield from types(part, seen)

    for service, operations in {
        "sagemaker": ["CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob"],
        "logs": ["DescribeLogStreams", "GetLogEvents"],
    }.items():
        model = ServiceModel(Loader().load_service_model(service, "service-2"))
        for operation in operations:
            assert set(types(model.operation_model(operation).input_shape, set())) <= set(_JSON_TYPES)
