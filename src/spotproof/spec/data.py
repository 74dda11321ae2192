"""Where a job's data, checkpoints and results lie. Pure."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from spotproof.contract import DEFAULT_CHECKPOINT_LOCAL_PATH, DEFAULT_TENSORBOARD_LOCAL_PATH, ML_ROOT
from spotproof.errors import SpecError
from spotproof.spec.part import FieldRuleError, KmsKey, SpecPart, Texts, check_length
from spotproof.spec.places import S3Uri, split_s3_uri

__all__ = ["Channel", "Data", "InputMode", "TensorBoardOutput"]

InputMode = Literal["File", "FastFile", "Pipe"]

_CHANNEL = re.compile(r"[A-Za-z0-9.\-_]{1,64}")
_FILE_SYSTEM = re.compile(r"fs-[0-9a-f]{8,18}")


class Channel(SpecPart):
    """One input: in S3, on this machine, or on a file system."""

    s3_uri: str | None = None
    """``s3://`` URI, or a local file or folder (relative to job.yaml) that is uploaded."""
    s3_data_type: Literal["S3Prefix", "ManifestFile", "AugmentedManifestFile"] = "S3Prefix"
    """Whether the URI is a prefix of objects, or a manifest that lists them."""
    distribution: Literal["FullyReplicated", "ShardedByS3Key"] = "FullyReplicated"
    """Whether each machine gets all objects or its share."""
    attribute_names: Texts = ()
    """The attributes of an augmented manifest, at most 16."""
    shuffle_seed: int | None = None
    """The service shuffles the objects by this number."""
    file_system_id: str | None = Field(None, json_schema_extra={"pattern": f"^{_FILE_SYSTEM.pattern}$"})
    """An EFS or FSx for Lustre file system, in place of s3_uri; the job needs subnets that reach it."""
    file_system_type: Literal["EFS", "FSxLustre"] | None = None
    """Which of both it is."""
    directory_path: str | None = None
    """The folder on it; for FSx it begins with the mount name."""
    file_system_access_mode: Literal["ro", "rw"] = "ro"
    """Read only, or also written to."""
    content_type: str | None = Field(None, json_schema_extra={"maxLength": 256})
    """MIME type, told to the program."""
    compression: Literal["None", "Gzip"] | None = None
    """How the objects are compressed."""
    record_wrapping: Literal["None", "RecordIO"] | None = None
    """How the service wraps them."""
    input_mode: InputMode | None = None
    """How they get to the program, in place of the job's."""

    @property
    def local_path(self) -> Path | None:
        """Where it lies on this machine; None if it does not."""
        return Path(self.s3_uri) if self.s3_uri is not None and not self.s3_uri.startswith("s3://") else None

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return self.s3_uri if self.s3_uri is not None else f"{self.file_system_id}:{self.directory_path}"

    @field_validator("s3_uri")
    @classmethod
    def _check_place(cls, place: str | None) -> str | None:
        if place is not None and "://" in place:
            split_s3_uri(place)
        elif place is not None and (not place or not place.isprintable()):
            raise SpecError("It has no place.", do="Give an s3:// URI, a file or a folder.")
        return place

    @field_validator("attribute_names")
    @classmethod
    def _check_attributes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > 16:
            raise SpecError(f"{len(names)} attributes are named.", why="The service takes 16.", do="Leave some out.")
        for name in names:
            check_length("An attribute's name", name, 256, may_be_empty=False)
        return names

    @field_validator("file_system_id")
    @classmethod
    def _check_file_system(cls, name: str | None) -> str | None:
        if name is not None and not _FILE_SYSTEM.fullmatch(name):
            raise SpecError(f"{name!r} is no file system.", do="Write its id, as fs-0123456789abcdef0.")
        return name

    @field_validator("directory_path")
    @classmethod
    def _check_directory(cls, path: str | None) -> str | None:
        if path is not None:
            check_length("The path", path, 4096)
            if not path.startswith("/"):
                raise SpecError(f"{path!r} is no path on a file system.", do=f"Write /{path}.")
        return path

    @field_validator("content_type")
    @classmethod
    def _check_content_type(cls, kind: str | None) -> str | None:
        if kind is not None:
            check_length("The content type", kind, 256)
        return kind

    @field_validator("shuffle_seed")
    @classmethod
    def _check_seed(cls, seed: int | None) -> int | None:
        if seed is not None and not -(2**63) <= seed < 2**63:
            raise SpecError(f"{seed} is out of range.", do="Write a smaller number.")
        return seed

    @model_validator(mode="after")
    def _check_source(self) -> "Channel":
        if (self.s3_uri is None) == (self.file_system_id is None):
            found = "neither" if self.s3_uri is None else "both"
            raise FieldRuleError(
                "s3_uri",
                f"s3_uri and file_system_id: {found} is given.",
                "A channel has one source.",
                "Give an s3:// URI or a local path, or file_system_id, file_system_type and directory_path.",
            )
        of_a_file_system = (self.file_system_type, self.directory_path)
        if self.file_system_id is not None and None in of_a_file_system:
            missing = "file_system_type" if self.file_system_type is None else "directory_path"
            raise FieldRuleError(
                missing,
                f"{missing} is missing.",
                "The service needs it with file_system_id.",
                "Write it: EFS or FSxLustre." if missing == "file_system_type" else "Write it, as /data.",
            )
        if self.file_system_id is None and of_a_file_system != (None, None):
            raise FieldRuleError(
                "file_system_id",
                "file_system_id is missing.",
                "Type and path of a file system are given.",
                "Add file_system_id.",
            )
        is_augmented = self.s3_data_type == "AugmentedManifestFile"
        if is_augmented != bool(self.attribute_names):
            raise FieldRuleError(
                "attribute_names",
                "attribute_names and s3_data_type do not fit.",
                "The attributes are those of an AugmentedManifestFile, which needs them.",
                "Name them, or leave them out." if is_augmented else "Write s3_data_type: AugmentedManifestFile.",
            )
        return self


def _as_channel(value: Any) -> Any:
    return {"s3_uri": value} if isinstance(value, str) else value


class TensorBoardOutput(SpecPart):
    """Where TensorBoard's files go while the job runs."""

    s3_output_path: S3Uri
    """They are mirrored to ``<s3_output_path>/<job>/tensorboard-output/``."""
    container_local_output_path: str | None = None
    """Where the program writes them; the service's default is ``/opt/ml/output/tensorboard``."""

    @field_validator("container_local_output_path")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        return _checked_container_path(path, DEFAULT_TENSORBOARD_LOCAL_PATH)


def _checked_container_path(path: str | None, default: str) -> str | None:
    if path is not None and (not path.startswith("/") or len(path) > 4096 or "\n" in path):
        raise SpecError(
            f"{path!r} is no absolute path.",
            why="It is a place inside the container.",
            do=f"Write {default}, or leave the field out for the same.",
        )
    place, data = PurePosixPath(path or default), PurePosixPath(ML_ROOT, "input")
    if ".." in place.parts or data.is_relative_to(place) or place.is_relative_to(data):
        raise SpecError(
            f"{path!r} is no place of its own.",
            why="All of it is mirrored to S3; the service's own folders and the data lie there.",
            do=f"Write {default}, or leave the field out for the same.",
        )
    return path


class Data(SpecPart):
    """What the job reads and what it leaves."""

    inputs: dict[str, Annotated[Channel, BeforeValidator(_as_channel, json_schema_input_type=str | Channel)]] = Field(
        default_factory=dict
    )
    """Channels: each an ``s3://`` URI, a local file or folder (relative to job.yaml) that is uploaded, or a mapping
    with the fields of a channel."""
    input_mode: InputMode = "File"
    """How data gets to the program: copied before it starts, read through a mount, or piped."""
    checkpoint_s3_uri: S3Uri | None = None
    """Where checkpoints are mirrored to, and restored from at each start."""
    checkpoint_local_path: str | None = None
    """Where the program writes checkpoints; the service's default is ``/opt/ml/checkpoints``."""
    output_path: S3Uri
    """Where the model goes: ``<output_path>/<job>/output/model.tar.gz``."""
    output_kms_key: KmsKey | None = None
    """KMS key that encrypts it."""
    disable_output_compression: bool = False
    """Store model and output as they are, not as .tar.gz."""
    tensorboard_output_config: TensorBoardOutput | None = None
    """Have the service mirror TensorBoard's files. They do not come back after a reclaim, unlike what lies beside the
    checkpoints, where ``SpotCLI`` puts them."""

    @property
    def checkpoint_directory(self) -> str:
        """Where the program finds its checkpoints inside the container."""
        return self.checkpoint_local_path or DEFAULT_CHECKPOINT_LOCAL_PATH

    @property
    def local_inputs(self) -> dict[str, Path]:
        """The channels that lie on this machine and must be uploaded first."""
        paths = {name: channel.local_path for name, channel in self.inputs.items()}
        return {name: path for name, path in paths.items() if path is not None}

    @field_validator("checkpoint_local_path")
    @classmethod
    def _check_local_path(cls, path: str | None) -> str | None:
        return _checked_container_path(path, DEFAULT_CHECKPOINT_LOCAL_PATH)

    @field_validator("inputs")
    @classmethod
    def _check_inputs(cls, inputs: dict[str, Channel]) -> dict[str, Channel]:
        if len(inputs) > 20:
            raise SpecError(f"{len(inputs)} channels are given.", why="The service takes 20.", do="Merge some.")
        for name in inputs:
            if not _CHANNEL.fullmatch(name) or name in (".", ".."):
                raise SpecError(
                    f"{name!r} is no channel name.",
                    why="It has 1 to 64 letters, digits, dots, hyphens and underscores, and names a folder.",
                    do="Rename it; 'training' is the SDK's default.",
                )
        return inputs
