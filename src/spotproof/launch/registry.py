"""Building a job's image with the container engine, and pushing it to ECR: the thin shell."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotproof.engine import Engine
from spotproof.errors import EngineError
from spotproof.launch.failures import translated
from spotproof.launch.images import Repository, build_words, login_words, parse_token, stage_context

__all__ = ["Pushed", "build_image", "push_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What has been pushed."""

    image_uri: str
    """With the registry's host: what a job's image_uri is to be."""
    is_new_repository: bool


def build_image(
    engine: Engine,
    *,
    image_uri: str,
    source: Path,
    dockerfile: Path,
    build_args: Mapping[str, str],
    platform: str | None = None,
) -> str:
    """Build *image_uri* of the folder *source*, with this Spotproof beside it; return its digest.

    What the engine says goes to stderr.

    Raises:
        SpecError: There is no such Dockerfile.
        EngineError: The engine could not build it.
    """
    with tempfile.TemporaryDirectory(prefix="spotproof-image-") as folder:
        context = Path(folder) / "context"
        place = stage_context(source, dockerfile, context)
        words = build_words(
            image_uri=image_uri,
            dockerfile=place,
            context=context,
            build_args=build_args,
            platform=platform,
            ulimits=engine.ulimits,
        )
        _tell(engine, words, f"The image {image_uri} was not built")
    digest = engine.find_image(image_uri)
    if digest is None:
        raise EngineError(f"The image {image_uri} was not built:", why=f"{engine} does not have it.")
    return digest


def push_image(engine: Engine, image_uri: str, repository: Repository) -> Pushed:
    """Push *image_uri* to *repository*, which is made if it is an ECR one and not there.

    Raises:
        EngineError: The engine does not have the image, or could not push it.
        LaunchError: ECR refused.
    """
    if engine.find_image(image_uri) is None:
        raise EngineError(
            f"There is no image {image_uri} to push:",
            why=f"{engine} does not have it.",
            do="Build it first: spotproof image build.",
        )
    if not repository.is_ecr:
        target, is_new = f"{repository.host}/{repository.name}:{repository.tag}", False
    else:
        uri, is_new, token = _open_repository(repository)
        target = f"{uri}:{repository.tag}"
        _log_in(engine, *token)
    if target != image_uri:
        _tell(engine, ["tag", image_uri, target], f"{image_uri} was not tagged")
    _tell(engine, ["push", target], f"{target} was not pushed")
    return Pushed(image_uri=target, is_new_repository=is_new)


def _open_repository(repository: Repository) -> tuple[str, bool, tuple[str, str, str]]:
    """Return the repository's URI, whether it has just been made, and user, password and host to log in with."""
    import boto3

    registry: Any = {"registryId": repository.account} if repository.account is not None else {}
    with translated("open ECR"):
        client = boto3.session.Session(region_name=repository.region).client("ecr")
    is_new = False
    with translated(f"describe the repository {repository.name!r}"):
        try:
            found = client.describe_repositories(repositoryNames=[repository.name], **registry)["repositories"][0]
        except client.exceptions.RepositoryNotFoundException:
            found = None
    if found is None:
        with translated(f"create the repository {repository.name!r}"):
            found, is_new = client.create_repository(repositoryName=repository.name, **registry)["repository"], True
    with translated("give a password for ECR"):
        token = parse_token(client.get_authorization_token())
    return str(found["repositoryUri"]), is_new, token


def _log_in(engine: Engine, user: str, password: str, host: str) -> None:
    done = engine.run(login_words(user, host), text=password)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise EngineError(f"{engine} could not log in to {host}:", why=f"{reason.rstrip('.')}.")


def _tell(engine: Engine, words: Sequence[str], failure: str) -> None:
    """Have the engine do something that takes its time; what it says goes to stderr, as it comes."""
    try:
        code = subprocess.run(
            [engine.path, *words], stdin=subprocess.DEVNULL, stdout=2, stderr=2, check=False
        ).returncode
    except OSError as error:
        raise EngineError(f"{failure}:", why=f"{error}.") from error
    if code != 0:
        raise EngineError(
            f"{failure}:",
            why=f"{engine} ended with code {code}.",
            do="Its own words are above; correct what they name.",
        )
