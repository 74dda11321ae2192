"""The pair of keys with which clients sign: one a user, made once, so that it can be told before a server runs."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spotproof.errors import EngineError

__all__ = ["Keys", "read_or_make_keys"]

_ACCESS_KEY: Final = "spotproof"


@dataclass(frozen=True, slots=True)
class Keys:
    """What AWS calls credentials; the local S3 server checks them, and nobody else knows them."""

    access: str
    secret: str

    def environment(self) -> dict[str, str]:
        """Return them as the variables that AWS clients read."""
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}


def read_or_make_keys(folder: Path) -> Keys:
    """Return the keys that lie in *folder*; make them, for the owner's eyes only, if there are none.

    Of several that make them at once, one does, and all get its.

    Raises:
        EngineError: The folder can't be written, or the file is damaged.
    """
    path = folder / "keys.json"
    try:
        if not path.exists():
            _make(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        return Keys(str(found["access"]), str(found["secret"]))
    except OSError as error:
        raise EngineError(
            f"The keys of the local platform can't be kept in {folder}:",
            why=f"{error.strerror}.",
            do="Set XDG_STATE_HOME to a folder that can be written.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"The keys of the local platform in {path} can't be read:",
            why="the file is damaged.",
            do="Delete it: new ones are made. Servers that run go on with the old ones; start them again.",
        ) from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"keys.{os.getpid()}-{secrets.token_hex(4)}.staged")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"access": _ACCESS_KEY, "secret": secrets.token_hex(20)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(staged, path)
    except FileExistsError:
        pass  # another process was quicker
    finally:
        staged.unlink()
