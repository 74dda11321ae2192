"""On which machines a job runs, and for how long. Pure.

Source of all limits: the SageMaker API model (botocore, ``service-2.json``) and the texts the service answers with.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from spotproof.errors import SpecError
from spotproof.spec.deadline import Deadline, parse_deadline
from spotproof.spec.part import FieldRuleError, GivenText, KmsKey, SpecPart, Texts

__all__ = ["Limits", "Machines"]

MAX_RUN_SECONDS = 28 * 24 * 3600
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_MAX_TYPES = 20
_MAX_VOLUME_GB = 16384
_MAX_KEEP_ALIVE_SECONDS = 21600


class Machines(SpecPart):
    """What the job runs on."""

    instance_type: str = Field(json_schema_extra={"pattern": f"^{_INSTANCE.pattern}$"})
    """For example ``ml.g5.xlarge``: what is asked for first."""
    instance_types: Texts = ()
    """Types in the order of preference, in place of instance_type, for when there is no capacity; always holds
    instance_type, as the first."""
    instance_count: int = Field(1, json_schema_extra={"minimum": 1})
    """Machines. Each runs the program; they find each other."""
    use_spot_instances: bool = False
    """Managed spot training: a third of the price, and may be reclaimed at any moment."""
    volume_size: int = Field(30, json_schema_extra={"minimum": 1, "maximum": _MAX_VOLUME_GB})
    """GB of disk of each machine, for data and checkpoints. Types with disks of their own use those."""
    volume_kms_key: KmsKey | None = None
    """KMS key that encrypts those disks."""
    keep_alive_period_in_seconds: int | None = Field(
        None, json_schema_extra={"minimum": 1, "maximum": _MAX_KEEP_ALIVE_SECONDS}
    )
    """Seconds for which the machines wait, and are billed, for a next job like this one: a warm pool. Not with spot."""
    enable_infra_check: bool | None = None
    """Whether the service looks at GPUs and the network between them before the program starts; its own default if left
    out."""

    @model_validator(mode="before")
    @classmethod
    def _choose_instance_type(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        types = values.get("instance_types")
        if isinstance(types, GivenText):
            types = types.read_as(tuple[str, ...])
        if isinstance(types, (list, tuple)) and types:
            if values.get("instance_type", types[0]) != types[0]:
                raise FieldRuleError(
                    "instance_types",
                    "instance_type and instance_types are given.",
                    "The first of instance_types is what is asked for first.",
                    "Keep one of both.",
                )
            return {**values, "instance_types": types, "instance_type": types[0]}
        if "instance_type" in values and not types:
            return {**values, "instance_types": (str(values["instance_type"]),)}
        return values

    @field_validator("instance_types")
    @classmethod
    def _check_types(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if len(kinds) > _MAX_TYPES:
            raise SpecError(f"{len(kinds)} types are given.", do=f"Write the {_MAX_TYPES} you like best.")
        for kind in kinds[1:]:  # the first is instance_type
            cls._check_instance_type(kind)
        twice = [kind for kind in kinds if kinds.count(kind) > 1]
        if twice:
            raise SpecError(f"{twice[0]} is given twice.", do="Keep one.")
        return kinds

    @field_validator("instance_type")
    @classmethod
    def _check_instance_type(cls, kind: str) -> str:
        if not _INSTANCE.fullmatch(kind):
            guess = f"ml.{kind}" if _INSTANCE.fullmatch(f"ml.{kind}") else "ml.g5.xlarge"
            raise SpecError(
                f"{kind!r} is no SageMaker instance type.",
                why="They begin with 'ml.'.",
                do=f"Write for example {guess}.",
            )
        return kind

    @field_validator("instance_count")
    @classmethod
    def _check_instance_count(cls, count: int) -> int:
        if not 1 <= count < 2**31:
            raise SpecError(f"{count} machines train nothing.", do="Write 1 or more.")
        return count

    @field_validator("volume_size")
    @classmethod
    def _check_volume(cls, size_gb: int) -> int:
        if not 1 <= size_gb <= _MAX_VOLUME_GB:
            raise SpecError(
                f"{size_gb} GB is out of range.",
                why="The service takes 1 GB to 16 TB.",
                do=f"Write 1 to {_MAX_VOLUME_GB}.",
            )
        return size_gb

    @field_validator("keep_alive_period_in_seconds")
    @classmethod
    def _check_keep_alive(cls, seconds: int | None) -> int | None:
        if seconds is not None and not 1 <= seconds <= _MAX_KEEP_ALIVE_SECONDS:
            raise SpecError(
                f"{seconds} seconds are out of range.",
                why="The service takes 1 second to 6 hours.",
                do=f"Write 1 to {_MAX_KEEP_ALIVE_SECONDS}, or leave the field out for no warm pool.",
            )
        return seconds


class Limits(SpecPart):
    """How long the job may take, and what it may cost."""

    max_run: int = Field(86400, json_schema_extra={"minimum": 1, "maximum": MAX_RUN_SECONDS})
    """Seconds the job may run; the SDK's default of one day."""
    max_wait: int | None = Field(None, json_schema_extra={"minimum": 1, "maximum": MAX_RUN_SECONDS})
    """Seconds the job may wait for capacity and run, together; needed with spot and refused without."""
    max_retry_attempts: int | None = Field(None, json_schema_extra={"minimum": 1, "maximum": 30})
    """1 to 30 restarts after an internal error of the service. Reclaims do not count against it."""
    deadline: Annotated[
        Deadline | None,
        BeforeValidator(lambda value: None if value is None else parse_deadline(value)),
        WithJsonSchema({"type": "string"}),
    ] = None
    """By when the job must be done: ``36h`` from its submission, or a time with its zone."""
    max_cost_usd: float | None = Field(None, json_schema_extra={"exclusiveMinimum": 0})
    """What all its machines together may cost, in USD."""

    @field_validator("max_run", "max_wait")
    @classmethod
    def _check_seconds(cls, seconds: int | None) -> int | None:
        if seconds is not None and not 1 <= seconds <= MAX_RUN_SECONDS:
            raise SpecError(
                f"{seconds} seconds are out of range.",
                why="The service takes 1 second to 28 days.",
                do=f"Write 1 to {MAX_RUN_SECONDS}.",
            )
        return seconds

    @field_validator("max_retry_attempts")
    @classmethod
    def _check_retries(cls, attempts: int | None) -> int | None:
        if attempts is not None and not 1 <= attempts <= 30:
            raise SpecError(
                f"{attempts} is out of range.",
                why="The service takes 1 to 30.",
                do="Write 1 to 30, or leave the field out for no retries. Reclaims do not count against it.",
            )
        return attempts

    @field_validator("max_cost_usd")
    @classmethod
    def _check_cost(cls, usd: float | None) -> float | None:
        if usd is not None and not 0 < usd < 1e9:
            raise SpecError(f"{usd:g} USD is no limit.", do="Write more than 0, or leave the field out for none.")
        return usd
