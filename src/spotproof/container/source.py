"""Script mode: the code that came with the request, as the SageMaker Python SDK sends it with ``entry_point``.

``python -m spotproof.container.source URL`` fetches it, in a process of its own: the S3 client has threads, and PID 1
must have none when it forks.

Source: aws/sagemaker-training-toolkit ``params.py``, ``files.py`` (``download_and_extract``). Unlike there, an image
that has code of its own in ``/opt/ml/code`` does not hide what the request brings.
"""

import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotproof.container.arguments import decode_hyperparameters
from spotproof.container.failure import write_failure
from spotproof.contract import CODE_DIR, ENV_BASE_DIR, ML_ROOT
from spotproof.errors import SpecError

__all__ = ["build_fetch", "fetch_source", "find_source"]

_ENV_SUBMIT_DIRECTORY = "SAGEMAKER_SUBMIT_DIRECTORY"
_HYPERPARAMETER_SUBMIT_DIRECTORY = "sagemaker_submit_directory"
_ENV_S3_ENDPOINT = "S3_ENDPOINT_URL"
"""Read by the toolkit for this download."""


def find_source(raw_hyperparameters: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Return the ``s3://…`` URL of the archive that came with the request; None if the code is in the image."""
    place = environ.get(_ENV_SUBMIT_DIRECTORY) or decode_hyperparameters(raw_hyperparameters).get(
        _HYPERPARAMETER_SUBMIT_DIRECTORY
    )
    return str(place) if place and str(place).startswith("s3://") else None


def build_fetch(url: str, python: str) -> list[str]:
    """Return the command that fetches the archive at *url* into the code directory, and writes why if it can't."""
    return [python, "-m", __name__, url]


def fetch_source(url: str, directory: Path, environ: Mapping[str, str]) -> None:
    """Unpack the ``.tar.gz`` at *url* into *directory*, over what is there; nothing gets outside of it.

    Raises:
        SpecError: It is not there, is no such archive, or reaches outside.
    """
    from spotproof.storage._s3 import S3Storage, split_s3_url

    if not hasattr(tarfile, "data_filter"):
        raise SpecError(
            f"The source archive {url} can't be unpacked safely:",
            why="this Python is too old to refuse paths that lead outside.",
            do="Use Python 3.10.12, 3.11.4, or newer in the image.",
        )
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get(_ENV_S3_ENDPOINT)
    reached = {**environ, "AWS_ENDPOINT_URL_S3": endpoint} if endpoint else environ
    bucket, key = split_s3_url(url)
    prefix, _, name = key.rpartition("/")
    if not name:
        raise SpecError(f"The source archive {url} can't be read:", why="it is a prefix.", do="Name the .tar.gz.")
    try:
        with tempfile.TemporaryFile() as packed:
            for piece in S3Storage(bucket, prefix, environment=reached, home=Path.home()).stream(name):
                packed.write(piece)
            packed.seek(0)
            directory.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=packed, mode="r:*") as archive:
                archive.extractall(directory, filter="data")
    except FileNotFoundError as err:
        raise SpecError(
            f"The source archive {url} does not exist.",
            why="The hyperparameter sagemaker_submit_directory names it.",
            do="The SDK uploads it when the job is created: do not delete it before the job has ended.",
        ) from err
    except tarfile.TarError as err:
        raise SpecError(
            f"The source archive {url} can't be unpacked.", why=f"{err}.", do="Pack the files of source_dir as .tar.gz."
        ) from err
    except (OSError, EOFError) as err:
        raise SpecError(f"The source archive {url} can't be read.", why=f"{err}") from err


def _main(url: str, environ: Mapping[str, str]) -> int:
    base = Path(environ.get(ENV_BASE_DIR) or ML_ROOT)
    try:
        fetch_source(url, base / CODE_DIR, environ)
    except SpecError as err:
        sys.stderr.write(f"{err}\n")
        write_failure(base, f"{type(err).__name__}: {err}")
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], os.environ))
