"""What our own two doors do, from the request's JSON to the answer's: take a job's machines, and let faults in.

    POST /spotproof/reclaim   {"TrainingJobName": …, "GraceSeconds": 0, "AwaySeconds": 90,
                               "Host": "algo-2"}
    POST /spotproof/faults    {"TrainingJobName": …, "SyncFaults": "torn:0.2", "S3Faults": "throttle:0.1"}

The answer of the second is what is then in force, and what has happened; without a plan it changes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from spotproof.errors import SpecError
from spotproof.local.api import Api
from spotproof.local.fault_desk import FaultDesk, Injected
from spotproof.local.s3_faults import S3Faults, parse_s3_faults
from spotproof.local.sync_faults import parse_sync_faults
from spotproof.local.wire import ResourceInUse, ValidationException
from spotproof.schedule import MAX_GRACE_SECONDS

__all__ = ["Controls"]

_MAX_AWAY_SECONDS: Final = 28 * 86400
"""The longest that a job may wait for capacity, so the longest that makes a difference."""


class Controls:
    """What a person or a test does to the platform beside the service's own operations."""

    def __init__(self, api: Api, faults: FaultDesk, set_s3_faults: Callable[[S3Faults], None]) -> None:
        self._api, self._faults, self._set_s3_faults = api, faults, set_s3_faults

    def reclaim(self, body: Any) -> dict[str, Any]:
        """Take the machines of a running spot job.

        Raises:
            WireError: There is no such job, nothing of it to take, or the request is none.
        """
        fields = _fields(body, {"TrainingJobName", "GraceSeconds", "AwaySeconds", "Host"})
        name = _text(fields, "TrainingJobName")
        if name is None:
            raise ValidationException('Send {"TrainingJobName": "…"}.')
        grace = _seconds(fields, "GraceSeconds", MAX_GRACE_SECONDS) or 0.0
        away = _seconds(fields, "AwaySeconds", _MAX_AWAY_SECONDS)
        job = self._api.find_live(name)
        attempt = None
        if job is not None:
            hosts = [f"algo-{index + 1}" for index in range(job.plan.rules.num_hosts)]
            host = _text(fields, "Host")
            if host is not None and host not in hosts:
                raise ValidationException(f"Host must be one of {', '.join(hosts)}; leave it out to take all.")
            attempt = job.reclaim(grace, away, host=None if host is None else hosts.index(host))
        if attempt is None:
            facts = self._api.describe(name)
            is_spot = facts["EnableManagedSpotTraining"]
            reason = f"it is in status {facts['SecondaryStatus']}" if is_spot else "it is on demand"
            raise ResourceInUse(f"Job {name} has no capacity to take: {reason}.")
        return {"TrainingJobName": name, "Attempt": attempt}

    def change_faults(self, body: Any) -> dict[str, Any]:
        """Let faults in from now on, those of agents also into running ones; ``none`` ends them.

        Raises:
            WireError: There is no such job, or a plan can't be used.
        """
        fields = _fields(body, {"TrainingJobName", "SyncFaults", "S3Faults"})
        name, sync, s3 = (_text(fields, key) for key in ("TrainingJobName", "SyncFaults", "S3Faults"))
        if name is not None:
            self._api.describe(name)
            if s3 is not None:
                raise ValidationException("S3Faults are for all jobs: requests do not say whose they are.")
        try:
            sync_faults = parse_sync_faults(sync) if sync is not None else None
            s3_faults = parse_s3_faults(s3) if s3 is not None else None
        except SpecError as error:
            raise ValidationException(str(error)) from error
        if sync_faults is not None:
            self._faults.set_sync(sync_faults, name)
        if s3_faults is not None:
            self._set_s3_faults(s3_faults)
        return self._faults_of(name)

    def _faults_of(self, job: str | None) -> dict[str, Any]:
        of_job: Mapping[str, Any] = (
            {"TrainingJobName": job, "Injected": [_told(item) for item in self._faults.injected(job)]} if job else {}
        )
        return {
            "SyncFaults": self._faults.sync_of(job).text,
            "S3Faults": self._faults.weather.faults.text,
            "InjectedIntoS3": [_told(item) for item in self._faults.injected_into_s3()],
            **of_job,
        }


def _told(injected: Injected) -> dict[str, Any]:
    attempt = {} if injected.attempt is None else {"Attempt": injected.attempt}
    return {"Kind": injected.kind, **attempt, "Count": injected.count, "Examples": injected.examples}


def _fields(body: Any, known: set[str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ValidationException("Send a JSON object.")
    unknown = sorted(set(body) - known)
    if unknown:
        raise ValidationException(f"There is no field {unknown[0]!r}, only {', '.join(sorted(known))}.")
    return body


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ValidationException(f"{name} must be a string.")
    return value


def _seconds(fields: Mapping[str, Any], name: str, maximum: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= maximum:
        raise ValidationException(f"{name} must be a number from 0 to {maximum}.")
    return float(value)
