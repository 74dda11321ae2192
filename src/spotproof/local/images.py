"""What stands in for container images: a folder and a command."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spotproof.errors import SpecError

__all__ = ["Image", "command_of", "parse_image"]

_FORM = (
    "Write URI=FOLDER:COMMAND, for example "
    'sagemaker-tutorial=examples/cifar10:"python -m spotproof.container train.py".'
)


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
        if not Path(self.folder).is_dir():
            raise SpecError(
                f"Image folder {str(self.folder)!r} is not a directory.", do="Give the folder with the script."
            )


def parse_image(text: str) -> tuple[str, Image]:
    """Return the URI and the image that ``URI=FOLDER:COMMAND`` names.

    Raises:
        SpecError: It has another form, or there is no such folder.
    """
    uri, equals, rest = text.partition("=")
    folder, colon, command = rest.partition(":")
    if not (uri and equals and folder and colon and command.strip()):
        raise SpecError(f"Image {text!r} can't be read.", do=_FORM)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SpecError(f"Image {text!r} can't be read:", why=f"its command has {error}.", do=_FORM) from error
    return uri, Image(Path(folder).absolute(), words)


def command_of(image: Image, entrypoint: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the command of a job, as ``docker run`` would put it together.

    Source: AWS, "How Amazon SageMaker runs your training image": an entry point replaces the image's, arguments follow.
    """
    words = [*(entrypoint or image.command), *arguments]
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    return words
