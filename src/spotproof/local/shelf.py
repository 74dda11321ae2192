"""Which image a URI names: one that is mapped to a folder, else one that the container engine has."""

from collections.abc import Mapping

from spotproof.engine import Engine
from spotproof.errors import EngineError
from spotproof.local.images import EngineImage, Image
from spotproof.local.wire import ValidationException

__all__ = ["ImageShelf"]


class ImageShelf:
    """The images of one platform.

    Args:
        mapped: By their URIs; they come first.
        engine: None if there is none.
    """

    def __init__(self, mapped: Mapping[str, Image], engine: Engine | None) -> None:
        self._mapped, self._engine = mapped, engine

    def find(self, uri: str) -> Image | EngineImage:
        """Return the image of *uri* as it is now.

        Raises:
            ValidationException: There is none; says how to get one.
        """
        if uri in self._mapped:
            return self._mapped[uri]
        if self._engine is None:
            place = "no container engine is in use that could have it"
            get = "To run real images, install Docker or Podman and start it again."
        else:
            try:
                digest = self._engine.find_image(uri)
            except EngineError as error:
                raise ValidationException(f"The training image {uri!r} can't be looked for. {error}") from error
            if digest is not None:
                return EngineImage(digest)
            kind = self._engine.kind
            place = f"{self._engine} has no image of that name"
            get = f"Or get it: `{kind} pull {uri}`, or build it with `spotproof image build` or `{kind} build`."
        known = ", ".join(sorted(self._mapped)) or "none"
        raise ValidationException(
            f"The local platform does not know the training image {uri!r}: it is not mapped (mapped: {known}), and "
            f'{place}. Map it to a folder and a command: start the platform with --image {uri}=FOLDER:"COMMAND", for '
            f'example --image {uri}=examples/cifar10:"python -m spotproof.container train.py". {get}'
        )
