"""From facts to checks. Pure."""

import difflib
from collections.abc import Iterator
from datetime import timedelta

from spotproof.launch.preflight.check import Check, error, ok, unknown, warning
from spotproof.launch.preflight.checkpoint_checks import check_checkpoints, check_script
from spotproof.launch.preflight.ecr import parse_ecr_uri
from spotproof.launch.preflight.facts import Bucket, Facts, Image, Missing, Unseen
from spotproof.launch.preflight.input_checks import check_inputs
from spotproof.spec import JobSpec, split_s3_uri

__all__ = ["check_job"]


def check_job(spec: JobSpec, facts: Facts) -> list[Check]:
    """Return one check or more for each thing that the job needs, in the order in which they are shown."""
    return [
        *_check_time(spec, facts),
        *_check_machines(spec, facts),
        *_check_caller(facts),
        *_check_role(spec, facts),
        *_check_image(spec, facts),
        *_check_buckets(spec, facts),
        *check_inputs(spec, facts),
        *check_checkpoints(spec, facts),
        *check_script(spec, facts),
    ]


def _check_time(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    machines = f"{spec.instance_count} × {spec.instance_type}"
    if not spec.use_spot_instances:
        yield ok("max_run", f"at most {_duration(spec.max_run)} of {machines}, on demand")
    elif spec.max_wait == spec.max_run:
        yield warning(
            "max_wait",
            f"max_wait is max_run, {_duration(spec.max_run)}: time that passes without capacity is missing for the run",
            "Give the job some hours more to wait.",
        )
    else:
        waiting = _duration((spec.max_wait or 0) - spec.max_run)
        yield ok("max_wait", f"at most {_duration(spec.max_run)} of {machines}, and {waiting} of waiting")
    if spec.deadline is None:
        return
    due_at = spec.deadline.instant(facts.now)
    left = (due_at - facts.now).total_seconds()
    limit = spec.max_wait or spec.max_run
    if left <= 0:
        yield error("deadline", f"{due_at.isoformat()} has passed", "Give a later one, or leave it out.")
    elif due_at < facts.now + timedelta(seconds=limit):
        yield warning(
            "deadline",
            f"the job may go on for {_duration(limit)}, and the deadline is in {_duration(left)}",
            "Shorten max_run and max_wait to what is left, or ask `spotproof plan`.",
        )
    else:
        yield ok("deadline", f"in {_duration(left)}")


def _check_machines(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    for kind in spec.instance_types or (spec.instance_type,):
        if facts.known_types and kind not in facts.known_types:
            close = difflib.get_close_matches(kind, facts.known_types, n=1)
            yield warning(
                "instance_type",
                f"{kind} is none that this version of botocore knows",
                (f"Did you mean {close[0]}? " if close else "") + "If it is new, pip install -U botocore.",
            )
    if isinstance(facts.quota, Unseen):
        yield unknown("quota", facts.quota.reason)
        return
    for kind in spec.instance_types or (spec.instance_type,):
        limit = facts.quota.get(kind)
        usage = f"{kind} for {'spot ' if spec.use_spot_instances else ''}training job usage"
        if limit is None:
            yield unknown("quota", f"the account lists no quota {usage!r}")
        elif limit < spec.instance_count:
            yield error(
                "quota",
                f"{usage}: {limit:g}, and the job needs {spec.instance_count}",
                "Ask for more in Service Quotas, or take another instance_type.",
            )
        else:
            yield ok("quota", f"{usage}: {limit:g}, as far as no other job uses it")


def _check_caller(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.caller, (Unseen, Missing)):
        reason = facts.caller.reason if isinstance(facts.caller, Unseen) else facts.caller.text
        if "ocate credentials" in reason or "nvalidClientTokenId" in reason or "xpired" in reason:
            yield error(
                "credentials",
                f"there are none that AWS takes: {reason}",
                "Log in (`aws configure`, `aws sso login`), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            )
        else:
            yield unknown("credentials", reason)
    else:
        yield ok("credentials", f"{facts.caller.arn} in {facts.region}")


def _check_role(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    account = spec.role.split(":")[4]
    if not facts.is_local and not isinstance(facts.caller, (Unseen, Missing)) and account != facts.caller.account:
        yield error(
            "role",
            f"it belongs to account {account}, and you are in {facts.caller.account}",
            "Name a role of your own account, or change the AWS profile.",
        )
    elif isinstance(facts.role, Missing):
        yield error("role", f"there is none: {facts.role.text}", "Correct it, or make an execution role for SageMaker.")
    elif isinstance(facts.role, Unseen):
        yield unknown("role", facts.role.reason)
    elif not facts.role.trusts_sagemaker:
        yield error(
            "role",
            "its trust policy does not let sagemaker.amazonaws.com take it on",
            "Add that service to the role's trust policy.",
        )
    elif isinstance(facts.role.may_be_passed, Unseen):
        yield ok("role", "SageMaker may take it on")
        yield unknown("iam:PassRole", facts.role.may_be_passed.reason)
    elif not facts.role.may_be_passed:
        yield warning(
            "role",
            "by your policies, as far as they can be simulated, you may not pass it to SageMaker",
            "Have iam:PassRole for it granted to you.",
        )
    else:
        yield ok("role", "SageMaker may take it on, and you may pass it")


def _check_image(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    found = parse_ecr_uri(spec.image_uri)
    if isinstance(facts.image, Missing):
        yield error("image_uri", f"it is not there: {facts.image.text}", f"Push it: docker push {spec.image_uri}")
    elif found is not None and not facts.is_local and facts.region and found.region != facts.region:
        yield error(
            "image_uri",
            f"it is in {found.region}, and the job in {facts.region}",
            "The service pulls from its own region only: push it there.",
        )
    elif isinstance(facts.image, Image):
        size = f", {_bytes(facts.image.size_bytes)}" if facts.image.size_bytes else ""
        yield ok("image_uri", f"it is there{size}")
    elif spec.training_repository_access_mode == "Vpc":
        yield unknown("image_uri", "a registry in your VPC can't be seen from here")
    elif found is None and not facts.is_local:
        yield warning(
            "image_uri",
            f"{spec.image_uri} is no image in ECR",
            "SageMaker pulls from ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG; with "
            "training_repository_access_mode: Vpc from a registry of your own, too.",
        )
    else:
        yield unknown("image_uri", facts.image.reason)


def _check_buckets(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    named: dict[str, list[str]] = {}
    for field, uri in _places(spec):
        named.setdefault(split_s3_uri(uri)[0], []).append(field)
    for bucket, fields in named.items():
        found, subject = facts.buckets.get(bucket, Unseen("not looked at")), ", ".join(fields)
        if isinstance(found, Missing):
            is_made = facts.is_local and any(not field.startswith("inputs.") for field in fields)
            if is_made:
                yield ok(subject, f"bucket {bucket} will be made, as this is the local platform")
            else:
                yield error(subject, f"there is no bucket {bucket}", f"Correct the name, or: aws s3 mb s3://{bucket}")
        elif isinstance(found, Unseen):
            yield unknown(subject, found.reason)
        elif _is_elsewhere(found, facts):
            yield error(
                subject,
                f"bucket {bucket} is in {found.region}, and the job in {facts.region}",
                "The service needs both in one region: name another bucket, or set region.",
            )
        else:
            yield ok(subject, f"bucket {bucket} can be reached" + (f", {found.region}" if found.region else ""))


def _is_elsewhere(bucket: Bucket, facts: Facts) -> bool:
    return not facts.is_local and None not in (bucket.region, facts.region) and bucket.region != facts.region


def _places(spec: JobSpec) -> Iterator[tuple[str, str]]:
    yield "output_path", spec.output_path
    if spec.checkpoint_s3_uri is not None:
        yield "checkpoint_s3_uri", spec.checkpoint_s3_uri
    if spec.tensorboard_output_config is not None:
        yield "tensorboard_output_config", spec.tensorboard_output_config.s3_output_path
    for name, channel in spec.inputs.items():
        if channel.s3_uri is not None and channel.local_path is None:
            yield f"inputs.{name}", channel.s3_uri


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours / 24:.3g} days" if hours >= 48 else f"{hours:.3g} h" if hours >= 1 else f"{seconds / 60:.3g} min"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
