"""Images: what stands in for one, a folder and a command; or the real one, which a container engine has."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotproof.errors import SpecError

__all__ = ["EngineImage", "Image", "command_of", "image_document", "parse_image", "read_image_document", "read_images"]

_FORM = (
    "Write URI=FOLDER:COMMAND, for example "
    'sagemaker-tutorial=examples/cifar10:"python -m spotproof.container train.py".'
)
_FILE_FORM = 'Write "URI: {folder: FOLDER, command: python -m spotproof.container train.py}" for each image.'


@dataclass(frozen=True, slots=True)
class Image:
    """An image, as far as a job can tell: the content of its /opt/ml/code, and its entry point."""

    folder: Path
    """Copied afresh to /opt/ml/code for every attempt."""
    command: Sequence[str]
    """Runs there; ``python`` is the interpreter that runs the platform."""

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command:
            raise SpecError(f"Image command {self.command!r} can't be run.", do="Give a list: ['python', 'train.py'].")

    def check_folder(self) -> None:
        """Return if the folder is there.

        Raises:
            SpecError: It is not.
        """
        if not Path(self.folder).is_dir():
            raise SpecError(
                f"Image folder {str(self.folder)!r} is not a directory.", do="Give the folder with the script."
            )


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image that the container engine has."""

    digest: str
    """What runs is what had the URI when the job was created, whatever has it later."""


def parse_image(text: str) -> tuple[str, Image]:
    """Return the URI and the image that ``URI=FOLDER:COMMAND`` names.

    Raises:
        SpecError: It has another form, or there is no such folder.
    """
    uri, equals, rest = text.partition("=")
    folder, colon, command = rest.partition(":")
    if not (uri and equals and folder and colon and command.strip()):
        raise SpecError(f"Image {text!r} can't be read.", do=_FORM)
    image = Image(Path(folder).expanduser().absolute(), _split(command, f"Image {text!r}", _FORM))
    image.check_folder()
    return uri, image


def read_images(path: Path) -> dict[str, Image]:
    """Return the images by URI that a YAML file names; folders are relative to the file.

    Raises:
        SpecError: It can't be read, or says something else.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"The image file {path} can't be read:", why=f"{error}.", do=_FILE_FORM) from error
    if not isinstance(document, dict) or not document:
        raise SpecError(f"The image file {path} names no images.", do=_FILE_FORM)
    return {str(uri): _read_entry(entry, f"Image {uri!r} in {path}", path.parent) for uri, entry in document.items()}


def _read_entry(entry: Any, what: str, base: Path) -> Image:
    if not isinstance(entry, dict) or set(entry) != {"folder", "command"} or not isinstance(entry["folder"], str):
        raise SpecError(f"{what} can't be read.", do=_FILE_FORM)
    command = entry["command"]
    if isinstance(command, str):
        words = _split(command, what, _FILE_FORM)
    elif isinstance(command, list) and all(isinstance(word, str) for word in command):
        words = command
    else:
        raise SpecError(f"{what} has no command that can be run.", do=_FILE_FORM)
    image = Image((base / Path(entry["folder"]).expanduser()).absolute(), words)
    image.check_folder()
    return image


def _split(command: str, what: str, form: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SpecError(f"{what} can't be read:", why=f"its command has {error}.", do=form) from error


def command_of(image: Image | EngineImage, entrypoint: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the command of a job, as ``docker run`` would put it together; for an engine, the end of its command line.

    Source: AWS, "How Amazon SageMaker runs your training image": the argument is ``train``; an entry point replaces the
    image's and comes without it, arguments replace it.
    """
    if isinstance(image, EngineImage):
        if not entrypoint:
            return [image.digest, *(arguments or ["train"])]
        return [f"--entrypoint={entrypoint[0]}", image.digest, *entrypoint[1:], *arguments]
    words = [*(entrypoint or image.command), *arguments]
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    return words


def image_document(image: Image | EngineImage) -> dict[str, Any]:
    """Return the image as JSON can hold it."""
    if isinstance(image, EngineImage):
        return {"digest": image.digest}
    return {"folder": str(image.folder), "command": list(image.command)}


def read_image_document(document: Mapping[str, Any]) -> Image | EngineImage:
    """Return the image that :func:`image_document` told of.

    Raises:
        KeyError, SpecError: It did not.
    """
    if "digest" in document:
        return EngineImage(document["digest"])
    return Image(Path(document["folder"]), document["command"])
