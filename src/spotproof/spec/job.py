"""The fields of a job and their rules. Pure.

Source of all limits: the SageMaker API model (botocore, ``service-2.json``) and the texts the service answers with.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spotproof.contract import DEFAULT_CHECKPOINT_LOCAL_PATH, STEP_METRIC_NAME
from spotproof.errors import SpecError
from spotproof.spec.deadline import Deadline, parse_deadline

__all__ = ["FieldRuleError", "Hyperparameter", "JobSpec", "MetricDefinition", "hyperparameter_text", "split_s3_uri"]

Hyperparameter = bool | int | float | str | list[Any]

MAX_RUN_SECONDS = 28 * 24 * 3600
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_ROLE = re.compile(r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CHANNEL = re.compile(r"[A-Za-z0-9.\-_]{1,64}")
_ENV_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key prefix of ``s3://bucket/prefix``.

    Raises:
        SpecError: It is no such URI.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise SpecError(
            f"{uri!r} is no S3 place.",
            why="The form is s3://bucket/prefix; a bucket has 3 to 63 lower-case letters, digits, dots and hyphens.",
            do=f"Write for example s3://{_as_bucket(bucket)}/{prefix or 'some/prefix'}.",
        )
    if len(uri) > 1024:
        raise SpecError(f"The S3 URI is {len(uri)} characters long.", why="The service takes 1024.", do="Shorten it.")
    return bucket, prefix


def _as_bucket(text: str) -> str:
    guess = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return guess if _BUCKET.fullmatch(guess) else "my-bucket"


class FieldRuleError(SpecError):
    """A rule that binds two fields is broken; *field* is the one to change."""

    def __init__(self, field: str, what: str, why: str, do: str) -> None:
        super().__init__(what, why=why, do=do)
        self.field = field


class MetricDefinition(BaseModel):
    """A number the service reads from the log: *Regex*'s first group, under *Name*."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    Name: str = Field(min_length=1, max_length=255)
    Regex: str = Field(min_length=1, max_length=500)

    @field_validator("Regex")
    @classmethod
    def _captures_one_number(cls, regex: str) -> str:
        try:
            groups = re.compile(regex).groups
        except re.error as error:
            raise SpecError(f"{regex!r} is no regular expression: {error}.", do="Correct it.") from error
        if groups < 1:
            raise SpecError(
                f"{regex!r} captures nothing.",
                why="The first group is the metric's value.",
                do="Put the number in brackets, as in 'loss=([0-9.]+)'.",
            )
        return regex


class JobSpec(BaseModel):
    """One training job, valid by construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    """Base of the job's name: letters, digits and hyphens; a time stamp is added, as names are unique for ever."""
    image_uri: str
    """The training image, ``registry/repository:tag``."""
    role: str
    """ARN of the role the job runs as."""
    instance_type: str
    """For example ``ml.g5.xlarge``: what is asked for first."""
    instance_types: tuple[str, ...] = ()
    """Types in the order of preference, in place of instance_type, for when there is no capacity; always holds
    instance_type, as the first."""
    instance_count: int = 1
    use_spot_instances: bool = False
    max_run: int = 86400
    """Seconds the job may run; the SDK's default of one day."""
    max_wait: int | None = None
    """Seconds the job may wait for capacity and run, together; needed with spot and refused without."""
    max_retry_attempts: int | None = None
    """1 to 30 restarts after an internal error of the service. Reclaims do not count against it."""
    deadline: Deadline | None = None
    """By when the job must be done: ``36h`` from its submission, or a time with its zone."""
    max_cost_usd: float | None = None
    """What all its machines together may cost, in USD."""
    checkpoint_s3_uri: str | None = None
    """Where checkpoints are mirrored to, and restored from at each start."""
    checkpoint_local_path: str | None = None
    """Where the program writes checkpoints; the service's default is ``/opt/ml/checkpoints``."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Channel to ``s3://`` URI, or to a local file or folder (relative to job.yaml) that is uploaded."""
    output_path: str
    """Where the model goes: ``<output_path>/<job>/output/model.tar.gz``."""
    hyperparameters: dict[str, Hyperparameter] = Field(default_factory=dict)
    """Sent as strings: ``True`` as ``"True"``, numbers as Python prints them, lists as JSON, like the SDK without an
    entry point. The container reads each value as JSON and keeps it as it is where that fails."""
    environment: dict[str, str] = Field(default_factory=dict)
    metric_definitions: tuple[MetricDefinition, ...] = ()
    source_dir: Path | None = None
    """The folder the image holds as its code, for the local platform; relative to job.yaml."""
    entrypoint: tuple[str, ...] | None = None
    """What the image starts in that folder. A Python file is started by Spotproof's own container entry point."""

    @property
    def checkpoint_directory(self) -> str:
        """Where the program finds its checkpoints inside the container."""
        return self.checkpoint_local_path or DEFAULT_CHECKPOINT_LOCAL_PATH

    @property
    def local_inputs(self) -> dict[str, Path]:
        """The channels that lie on this machine and must be uploaded first."""
        return {channel: Path(place) for channel, place in self.inputs.items() if not place.startswith("s3://")}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            guess = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")[:63].rstrip("-") or "my-job"
            raise SpecError(
                f"{name!r} is no job name.",
                why="It has 1 to 63 letters, digits and hyphens, and begins and ends with a letter or digit.",
                do=f"Write for example {guess!r}.",
            )
        return name

    @field_validator("image_uri")
    @classmethod
    def _check_image(cls, image: str) -> str:
        if not image or len(image) > 255 or any(c.isspace() for c in image):
            raise SpecError(
                f"{image!r} is no image.",
                why="It has 1 to 255 characters and no spaces.",
                do="Write registry/repository:tag, or repository@sha256:….",
            )
        return image

    @field_validator("role")
    @classmethod
    def _check_role(cls, role: str) -> str:
        if not _ROLE.fullmatch(role) or not 20 <= len(role) <= 2048:
            name = role.rpartition("/")[2] if re.fullmatch(r"[\w+=,.@/-]+", role) else "MyRole"
            raise SpecError(
                f"{role!r} is no role ARN.",
                why="The service takes the whole ARN, not the role's name.",
                do=f"Write arn:aws:iam::<12-digit account>:role/{name}.",
            )
        return role

    @model_validator(mode="before")
    @classmethod
    def _choose_instance_type(cls, values: Any) -> Any:
        types = values.get("instance_types") if isinstance(values, dict) else None
        if isinstance(types, (list, tuple)) and types:
            if "instance_type" in values and values["instance_type"] != types[0]:
                raise FieldRuleError(
                    "instance_types",
                    "instance_type and instance_types are given.",
                    "The first of instance_types is what is asked for first.",
                    "Keep one of both.",
                )
            return {**values, "instance_type": types[0]}
        if isinstance(values, dict) and "instance_type" in values and not types:
            return {**values, "instance_types": [values["instance_type"]]}
        return values

    @field_validator("instance_types", mode="before")
    @classmethod
    def _as_types(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_deadline(cls, value: Any) -> Any:
        return None if value is None else parse_deadline(value)

    @field_validator("max_cost_usd")
    @classmethod
    def _check_cost(cls, usd: float | None) -> float | None:
        if usd is not None and not 0 < usd < 1e9:
            raise SpecError(f"{usd:g} USD is no limit.", do="Write more than 0, or leave the field out for none.")
        return usd

    @field_validator("instance_types")
    @classmethod
    def _check_types(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            cls._check_instance_type(kind)
            if kinds.count(kind) > 1:
                raise SpecError(f"{kind} is given twice.", do="Keep one.")
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
        if count < 1:
            raise SpecError(f"{count} machines train nothing.", do="Write 1 or more.")
        return count

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

    @field_validator("checkpoint_s3_uri", "output_path")
    @classmethod
    def _check_s3(cls, uri: str | None) -> str | None:
        if uri is not None:
            split_s3_uri(uri)
        return uri

    @field_validator("checkpoint_local_path")
    @classmethod
    def _check_local_path(cls, path: str | None) -> str | None:
        if path is not None and (not path.startswith("/") or len(path) > 4096):
            raise SpecError(
                f"{path!r} is no absolute path.",
                why="It is a place inside the container.",
                do=f"Write {DEFAULT_CHECKPOINT_LOCAL_PATH}, or leave the field out for the same.",
            )
        return path

    @field_validator("inputs")
    @classmethod
    def _check_inputs(cls, inputs: dict[str, str]) -> dict[str, str]:
        if len(inputs) > 20:
            raise SpecError(f"{len(inputs)} channels are given.", why="The service takes 20.", do="Merge some.")
        for channel, place in inputs.items():
            if not _CHANNEL.fullmatch(channel):
                raise SpecError(
                    f"{channel!r} is no channel name.",
                    why="It has 1 to 64 letters, digits, dots, hyphens and underscores.",
                    do="Rename it; 'training' is the SDK's default.",
                )
            if "://" in place:
                split_s3_uri(place)
            elif not place:
                raise SpecError(f"Channel {channel!r} has no place.", do="Give an s3:// URI, a file or a folder.")
        return inputs

    @field_validator("hyperparameters")
    @classmethod
    def _check_hyperparameters(cls, values: dict[str, Hyperparameter]) -> dict[str, Hyperparameter]:
        if len(values) > 100:
            raise SpecError(
                f"{len(values)} hyperparameters are given.",
                why="The service takes 100.",
                do="Put the rest in a file that the program reads.",
            )
        for key, value in values.items():
            text = hyperparameter_text(value)
            if not 1 <= len(key) <= 256:
                raise SpecError(
                    f"The name {key!r} has {len(key)} characters.", why="The service takes 1 to 256.", do="Shorten it."
                )
            if len(text) > 2500:
                raise SpecError(
                    f"The value of {key!r} has {len(text)} characters.",
                    why="The service takes 2500.",
                    do="Put it in a file that the program reads.",
                )
        return values

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, values: dict[str, str]) -> dict[str, str]:
        if len(values) > 100:
            raise SpecError(f"{len(values)} variables are given.", why="The service takes 100.", do="Leave some out.")
        for key, value in values.items():
            if not _ENV_NAME.fullmatch(key) or len(key) > 512:
                raise SpecError(
                    f"{key!r} is no variable's name.",
                    why="It has letters, digits and underscores, at most 512, and does not begin with a digit.",
                    do="Rename it.",
                )
            if len(value) > 512:
                raise SpecError(
                    f"The value of {key} has {len(value)} characters.", why="The service takes 512.", do="Shorten it."
                )
        return values

    @field_validator("metric_definitions", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("metric_definitions")
    @classmethod
    def _check_metrics(cls, metrics: tuple[MetricDefinition, ...]) -> tuple[MetricDefinition, ...]:
        if len(metrics) > 40:
            raise SpecError(f"{len(metrics)} metrics are defined.", why="The service takes 40.", do="Leave some out.")
        names = [metric.Name for metric in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecError(
                f"{', '.join(twice)} is defined twice.", do=f"Keep one ({STEP_METRIC_NAME} is added for you)."
            )
        return metrics

    @field_validator("source_dir", mode="before")
    @classmethod
    def _as_path(cls, value: Any) -> Any:
        return Path(value) if isinstance(value, str) else value

    @field_validator("entrypoint", mode="before")
    @classmethod
    def _as_words(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = shlex.split(value)
            except ValueError as error:
                raise SpecError(
                    f"{value!r} is no command: {error}.", do="Close the quotation, or give a list."
                ) from error
        return tuple(value) if isinstance(value, list) else value

    @field_validator("entrypoint")
    @classmethod
    def _check_entrypoint(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None and (not words or not words[0]):
            raise SpecError("The command is empty.", do="Write for example 'train.py', or a list of words.")
        return words

    @model_validator(mode="after")
    def _check_spot(self) -> "JobSpec":
        if self.use_spot_instances and self.max_wait is None:
            raise FieldRuleError(
                "max_wait",
                "max_wait is missing.",
                "With use_spot_instances it must be given; it counts waiting for capacity and running, together.",
                f"Write max_wait: {self.max_run} or more.",
            )
        if self.use_spot_instances and self.max_wait is not None and self.max_wait < self.max_run:
            raise FieldRuleError(
                "max_wait",
                f"max_wait={self.max_wait} is less than max_run={self.max_run}.",
                "It counts waiting for capacity and running, together.",
                f"Write max_wait: {self.max_run} or more.",
            )
        if not self.use_spot_instances and self.max_wait is not None:
            raise FieldRuleError(
                "max_wait",
                f"max_wait={self.max_wait} is given without use_spot_instances.",
                "The service supports it for spot only.",
                "Add use_spot_instances: true, or remove max_wait.",
            )
        if self.use_spot_instances and self.checkpoint_s3_uri is None:
            raise FieldRuleError(
                "checkpoint_s3_uri",
                "checkpoint_s3_uri is missing.",
                "Without it nothing survives a reclaim: a spot job would begin from nothing each time.",
                f"Write checkpoint_s3_uri: {self.output_path.rstrip('/')}/checkpoints/.",
            )
        if self.checkpoint_s3_uri is not None:
            place = self.checkpoint_s3_uri.rstrip("/") + "/"
            others = {"output_path": self.output_path, **{f"inputs.{name}": uri for name, uri in self.inputs.items()}}
            for field, uri in others.items():
                if uri.startswith(place) or uri.rstrip("/") + "/" == place:
                    raise FieldRuleError(
                        "checkpoint_s3_uri",
                        f"{self.checkpoint_s3_uri} also holds {field}, {uri}.",
                        "At each start everything below it is copied into the container as checkpoints.",
                        f"Write for example {place}checkpoints/.",
                    )
        if self.checkpoint_local_path is not None and self.checkpoint_s3_uri is None:
            raise FieldRuleError(
                "checkpoint_local_path",
                "checkpoint_local_path is given without checkpoint_s3_uri.",
                "The local path alone is not mirrored anywhere.",
                "Add checkpoint_s3_uri, or remove checkpoint_local_path.",
            )
        return self


def hyperparameter_text(value: Hyperparameter) -> str:
    """Return *value* as the string that is sent."""
    return json.dumps(value) if isinstance(value, list) else str(value)
