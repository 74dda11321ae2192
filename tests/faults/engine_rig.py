"""Images for the tests of container engines, made of what this machine has: there may be no registry to pull from."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from io import BytesIO
from pathlib import Path

from local_rig import PREAMBLE

from spotproof.engine import find_engine
from spotproof.errors import EngineError

_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "__pycache__",
}
_LEFT_OUT |= {"dist-packages", "config-3"}


def find_obstacle(kind):
    """Return why tests of an engine can't run here; None if they can."""
    try:
        find_engine(kind)
    except EngineError as error:
        return str(error)
    return None if shutil.which("ldd") and sys.platform == "linux" else "no way to make an image here"


def build_base_image(kind, tag):
    """Make an image of this machine's Python and shell, without packages."""
    python = os.path.realpath(sys.executable)
    library = sysconfig.get_paths()["stdlib"]
    programs = [python, *filter(None, map(shutil.which, ("sh", "sleep", "cat", "env", "rm")))]
    extensions = Path(library, "lib-dynload").glob("*.so")
    with tarfile.open(f"/tmp/{tag.replace(':', '-')}-{os.getpid()}.tar", "w") as archive:
        try:
            for path in {*programs, *_libraries_of([*programs, *map(str, extensions)])}:
                _add_file(archive, path)
            _add_parents(archive, library)
            archive.add(library, library.lstrip("/"), filter=_kept)
            _add_link(archive, "usr/bin/python", python)
            if shutil.which("sh") != "/bin/sh":
                _add_link(archive, "bin/sh", shutil.which("sh"))
            for folder in ("tmp", "etc", "proc", "dev", "sys", "run", "root", "opt", "opt/ml", "opt/ml/code"):
                _add_folder(archive, folder)
            archive.close()
            done = subprocess.run([kind, "import", archive.name, tag], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        finally:
            os.unlink(archive.name)


def build_image(kind, tag, base, files, folder, *, entrypoint=()):
    """Make an image of *files*, by their paths, on *base*."""
    folder.mkdir(parents=True)
    for path, text in files.items():
        place = folder / "root" / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755)
    words = ", ".join(f'"{word}"' for word in entrypoint)
    lines = [f"FROM {base}", "COPY root/ /", "ENV PYTHONUNBUFFERED=1", *([f"ENTRYPOINT [{words}]"] if words else [])]
    (folder / "Dockerfile").write_text("\n".join([*lines, ""]))
    done = subprocess.run([kind, "build", "--tag", tag, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


TRAIN = f"""#!/usr/bin/python
{PREAMBLE}
exec(json.loads(json.loads(pathlib.Path("/opt/ml/input/config/hyperparameters.json").read_text())["script"]))
"""
"""The command of the tests' image: it runs the Python that a hyperparameter holds."""


def remove_image(kind, tag):
    subprocess.run([kind, "image", "rm", "--force", tag], capture_output=True, check=False)


def leftovers(kind, owner):
    """Return the containers and networks of a state directory."""
    found = []
    for thing in (["container", "ls", "--all"], ["network", "ls"]):
        command = [kind, *thing, "--quiet", "--filter", f"label=spotproof.owner={owner}"]
        found += subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return found


def _libraries_of(paths):
    found = set()
    for start in range(0, len(paths), 50):
        text = subprocess.run(["ldd", *paths[start : start + 50]], capture_output=True, text=True, check=False).stdout
        words = text.split()
        found |= {word for word in words if word.startswith("/") and not word.endswith(":")}
    return found


def _add_parents(archive, path):
    """Add the folders that *path* lies in: those that are only implied, an engine gives to root alone."""
    for parent in reversed(Path(path).parents):
        _add_folder(archive, str(parent).lstrip("/"))


def _add_file(archive, path):
    _add_parents(archive, path)
    data = Path(path).read_bytes()
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.size, entry.mode = len(data), 0o755
    archive.addfile(entry, BytesIO(data))


def _add_link(archive, name, target):
    _add_parents(archive, f"/{name}")
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_folder(archive, name):
    if not name or name in archive.getnames():
        return
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    archive.addfile(entry)


def _kept(entry):
    names = entry.name.split("/")
    return None if any(name in _LEFT_OUT or name.startswith("config-3") for name in names) else entry
