"""A job: all its fields, and the rules that bind several of them. Pure.

Source of all limits: the SageMaker API model (botocore, ``service-2.json``) and the texts the service answers with.
"""

import re

from pydantic import Field, field_validator, model_validator

from spotproof.errors import SpecError
from spotproof.spec.access import Access
from spotproof.spec.data import Data
from spotproof.spec.machines import Limits, Machines
from spotproof.spec.part import FieldRuleError
from spotproof.spec.places import as_folder
from spotproof.spec.program import Program

__all__ = ["PARTS", "JobSpec"]

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")

PARTS = (Program, Machines, Limits, Data, Access)
"""The subjects of a job's fields, in the order in which they are shown."""


class JobSpec(Access, Data, Limits, Machines, Program):
    """One training job, valid by construction."""

    name: str = Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})
    """Base of the job's name: letters, digits and hyphens; a time stamp is added, as names are unique for ever."""

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
        if self.use_spot_instances and self.keep_alive_period_in_seconds is not None:
            raise FieldRuleError(
                "keep_alive_period_in_seconds",
                "keep_alive_period_in_seconds is given with use_spot_instances.",
                "Spot machines are not kept warm: the service refuses both together.",
                "Remove one of them.",
            )
        return self

    @model_validator(mode="after")
    def _check_checkpoints(self) -> "JobSpec":
        if self.use_spot_instances and self.checkpoint_s3_uri is None:
            raise FieldRuleError(
                "checkpoint_s3_uri",
                "checkpoint_s3_uri is missing.",
                "Without it nothing survives a reclaim: a spot job would begin from nothing each time.",
                f"Write checkpoint_s3_uri: {self.output_path.rstrip('/')}/checkpoints/.",
            )
        if self.checkpoint_s3_uri is not None:
            place = as_folder(self.checkpoint_s3_uri)
            others = {"output_path": self.output_path}
            others.update({f"inputs.{name}": channel.s3_uri or "" for name, channel in self.inputs.items()})
            if self.tensorboard_output_config is not None:
                others["tensorboard_output_config"] = self.tensorboard_output_config.s3_output_path
            for field, uri in others.items():
                if uri.startswith(place) or as_folder(uri) == place:
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

    @model_validator(mode="after")
    def _check_reach(self) -> "JobSpec":
        if bool(self.subnets) != bool(self.security_group_ids):
            missing = "security_group_ids" if self.subnets else "subnets"
            raise FieldRuleError(
                missing, f"{missing} is missing.", "Subnets and security groups belong together.", "Write both or none."
            )
        if self.training_repository_access_mode == "Vpc" and not self.subnets:
            raise FieldRuleError(
                "training_repository_access_mode",
                f"The registry of {self.image_uri} cannot be reached.",
                "It lies in your VPC, and the job does not.",
                "Add subnets and security_group_ids from which it is reached.",
            )
        if self.training_repository_credentials_provider_arn and self.training_repository_access_mode != "Vpc":
            raise FieldRuleError(
                "training_repository_credentials_provider_arn",
                "training_repository_credentials_provider_arn is given without a registry of your own.",
                "ECR is entered with the job's role.",
                "Add training_repository_access_mode: Vpc, or remove it.",
            )
        for name, channel in self.inputs.items():
            field = f"inputs.{name}"
            if channel.file_system_id is not None and not self.subnets:
                raise FieldRuleError(
                    field,
                    f"{channel.file_system_id} cannot be reached.",
                    "A file system lies in your VPC, and the job does not.",
                    "Add subnets and security_group_ids from which it is reached.",
                )
            mode = channel.input_mode or self.input_mode
            if channel.file_system_id is not None and mode != "File":
                raise FieldRuleError(
                    field,
                    f"{channel.file_system_id} has the input mode {mode}.",
                    "A file system is mounted as it is.",
                    "Write input_mode: File for this channel.",
                )
            if channel.s3_data_type == "AugmentedManifestFile" and mode != "Pipe":
                raise FieldRuleError(
                    field,
                    f"AugmentedManifestFile has the input mode {mode}.",
                    "The service reads it in Pipe mode only.",
                    "Write input_mode: Pipe for this channel.",
                )
        return self
