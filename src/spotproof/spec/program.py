"""What a job runs: its image, and what the program is told. Pure."""

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from spotproof.contract import STEP_METRIC_NAME
from spotproof.errors import SpecError
from spotproof.spec.part import GivenText, SpecPart, TextMap, check_length

__all__ = ["Hyperparameter", "MetricDefinition", "Program", "hyperparameter_text"]

Hyperparameter = bool | int | float | str | list[Any]

_ENV_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_WORDS = 100
_LAMBDA = re.compile(r"arn:[a-zA-Z0-9-]+:lambda:[a-zA-Z0-9-]+:[0-9]{12}:function:.*")
_MAX_LAMBDA = 2048


def hyperparameter_text(value: Hyperparameter) -> str:
    """Return *value* as the string that is sent."""
    return json.dumps(value) if isinstance(value, list) else str(value)


class MetricDefinition(SpecPart):
    """A number the service reads from the log: *Regex*'s first group, under *Name*."""

    Name: str = Field(min_length=1, max_length=255)
    """For example ``val_loss``."""
    Regex: str = Field(min_length=1, max_length=500)
    """For example ``val_loss=([0-9.]+)``."""

    @field_validator("Name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        check_length("The name", name, 255)
        return name

    @field_validator("Regex")
    @classmethod
    def _captures_one_number(cls, regex: str) -> str:
        check_length("The expression", regex, 500)
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


def _as_words(value: Any) -> Any:
    if isinstance(value, GivenText):
        value = value.read_as(tuple[str, ...])
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise SpecError(f"{value!r} is no command: {error}.", do="Close the quotation, or give a list.") from error
    return tuple(value) if isinstance(value, list) else value


Command = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_words),
    Field(json_schema_extra={"type": ["array", "string"]}),
]
"""A list of words, or a text that is split as a shell does."""


class Program(SpecPart):
    """The image and its program."""

    image_uri: str = Field(json_schema_extra={"minLength": 1, "maxLength": 255})
    """The training image, ``registry/repository:tag``."""
    training_repository_access_mode: Literal["Platform", "Vpc"] | None = None
    """From where the image is pulled: ``Platform`` is ECR, ``Vpc`` a registry of your own that the job's subnets
    reach."""
    training_repository_credentials_provider_arn: str | None = Field(
        None, json_schema_extra={"pattern": f"^{_LAMBDA.pattern}$", "maxLength": _MAX_LAMBDA}
    )
    """ARN of the Lambda function that gives the credentials for that registry, if it asks for any."""
    source_dir: Path | None = None
    """The folder the image holds as its code, for the local platform; relative to job.yaml."""
    entrypoint: Command | None = None
    """What the image starts in that folder: a list of words, or a text that is split as a shell does. A Python file is
    started by Spotproof's own container entry point."""
    container_entry_point: Command | None = None
    """Replaces what the image starts, on AWS as here: ``docker run --entrypoint``."""
    container_arguments: Command | None = None
    """Arguments of the image's command, in place of ``train``."""
    hyperparameters: dict[str, Hyperparameter] = Field(default_factory=dict)
    """Sent as strings: ``True`` as ``"True"``, numbers as Python prints them, lists as JSON, like the SDK without an
    entry point. The container reads each value as JSON and keeps it as it is where that fails."""
    environment: TextMap = Field(default_factory=dict)
    """Variables of the program. Anyone who may describe the job sees them: no place for secrets."""
    metric_definitions: tuple[MetricDefinition, ...] = ()
    """Numbers the service reads from the log. The step is added for you."""
    enable_sagemaker_metrics: bool | None = None
    """Whether the service keeps those numbers as time series; its own default if left out."""

    @field_validator("training_repository_credentials_provider_arn")
    @classmethod
    def _check_credentials_provider(cls, arn: str | None) -> str | None:
        if arn is not None and (not _LAMBDA.fullmatch(arn) or len(arn) > _MAX_LAMBDA):
            raise SpecError(
                f"{arn!r} is no function's ARN.",
                why="A Lambda function gives the registry's user and password; they are not written here.",
                do="Write for example arn:aws:lambda:eu-west-1:111122223333:function:registry-login.",
            )
        return arn

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

    @field_validator("source_dir", mode="before")
    @classmethod
    def _as_path(cls, value: Any) -> Any:
        return Path(value) if isinstance(value, str) else value

    @field_validator("entrypoint")
    @classmethod
    def _check_entrypoint(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None and (not words or not words[0]):
            raise SpecError("The command is empty.", do="Write for example 'train.py', or a list of words.")
        return words

    @field_validator("container_entry_point", "container_arguments")
    @classmethod
    def _check_words(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None and not 1 <= len(words) <= _MAX_WORDS:
            raise SpecError(
                f"It has {len(words)} words.", why=f"The service takes 1 to {_MAX_WORDS}.", do="Write a script for it."
            )
        for word in words or ():
            check_length(f"The word {word[:20]!r}", word, 256)
        return words

    @field_validator("hyperparameters", mode="before")
    @classmethod
    def _keep_texts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {str(key): str(value) if isinstance(value, GivenText) else value for key, value in values.items()}

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
            if not 1 <= len(key) <= 256 or "\n" in key:
                raise SpecError(
                    f"The name {key!r} has {len(key)} characters.",
                    why="The service takes 1 to 256, in one line.",
                    do="Shorten it.",
                )
            try:
                text = hyperparameter_text(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise SpecError(
                    f"The list {key!r} holds what JSON has no form for: {error}.", do="Quote it."
                ) from error
            if len(text) > 2500 or "\n" in text:
                raise SpecError(
                    f"The value of {key!r} has {len(text)} characters in {text.count(chr(10)) + 1} lines.",
                    why="The service takes 2500 in one line.",
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
