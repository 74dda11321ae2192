"""What spot saved, by AWS's own formula and by an honest one."""

__all__ = ["aws_savings_percent", "net_savings_percent"]


def aws_savings_percent(training_seconds: float, billable_seconds: float) -> float | None:
    """Return ``(1 - billable / training) * 100``, or None for a job that did not train.

    This is the number SageMaker shows. Steps computed twice and repeated start-ups are part of *training_seconds*, so
    it does not see what interruptions cost.

    Source: DescribeTrainingJob, ``BillableTimeInSeconds``.
    """
    return None if training_seconds <= 0 else (1 - billable_seconds / training_seconds) * 100


def net_savings_percent(billable_seconds: float, undisturbed_seconds: float) -> float | None:
    """Return what was saved against one undisturbed on-demand run of the same job on the same machines, in percent.

    Negative where interruptions cost more than the discount gave. None without a run to compare with.

    Args:
        billable_seconds: Of the spot job, after the discount.
        undisturbed_seconds: Running time of the on-demand run, all of it billed.
    """
    return None if undisturbed_seconds <= 0 else (1 - billable_seconds / undisturbed_seconds) * 100
