"""Did two jobs end with the same model? Their last checkpoints decide; the model's files where there are none."""

import hashlib
import io
import tarfile

from spotproof.checkpoint.choose import newest_verified
from spotproof.checkpoint.compare import find_differences
from spotproof.launch import TrainingService
from spotproof.report import Verdict
from spotproof.storage import Storage

__all__ = ["compare_artifacts", "compare_checkpoints", "compare_jobs"]

_OFTEN_UNSEEDED = frozenset({"numpy", "random", "your modules"})


def compare_jobs(
    service: TrainingService,
    *,
    disturbed: Storage,
    disturbed_model: str | None,
    undisturbed: Storage,
    undisturbed_model: str | None,
) -> Verdict:
    """Return whether both jobs ended with the same model, bit for bit.

    Args:
        service: Reads the models.
        disturbed: Checkpoints of the job that was interrupted.
        disturbed_model: S3 URI of its ``model.tar.gz``.
        undisturbed: Checkpoints of the other.
        undisturbed_model: S3 URI of its ``model.tar.gz``.
    """
    verdict = compare_checkpoints(disturbed, undisturbed)
    if verdict is not None:
        return verdict
    return compare_artifacts(_download(service, disturbed_model), _download(service, undisturbed_model))


def compare_checkpoints(disturbed: Storage, undisturbed: Storage) -> Verdict | None:
    """Return the verdict of the newest checkpoints, or None if neither job wrote any.

    A program that seeds torch alone, and draws nowhere else, has generators of numpy, of Python or of its own in
    another state at each start. That is no difference of the model as long as nothing else differs, and only noted.
    """
    one, other = newest_verified(disturbed), newest_verified(undisturbed)
    if one is None and other is None:
        return None
    compared = "the last checkpoints: weights, optimizer, random numbers, loops, data position"
    if one is None or other is None:
        missing = "the interrupted run" if one is None else "the undisturbed run"
        return Verdict(is_identical=False, compared=compared, where="checkpoint", detail=f"{missing} left none")
    unseeded: set[str] = set()
    for difference in find_differences(one, disturbed, other, undisturbed):
        if not difference.generators or not _OFTEN_UNSEEDED.issuperset(difference.generators):
            return Verdict(is_identical=False, compared=compared, where=difference.where, detail=difference.detail)
        unseeded.update(difference.generators)
    num_tensors = sum(len(rank.tensors) for rank in one.ranks)
    return Verdict(
        is_identical=True,
        compared=f"{compared}; step {one.step}, tensors: {num_tensors}",
        note=_unseeded_note(unseeded),
    )


def _unseeded_note(generators: set[str]) -> str:
    if not generators:
        return ""
    names = " and ".join(sorted(generators))
    return (
        f"The generators of {names} ended in other states, and nothing else shows it: the program seems neither to "
        "seed them nor to draw from them. If it does draw from them, seed them, too."
    )


def compare_artifacts(disturbed: bytes | None, undisturbed: bytes | None) -> Verdict:
    """Return whether two ``model.tar.gz`` hold the same files with the same bytes; None stands for a missing one."""
    compared = "the files in model.tar.gz, as the program wrote no Spotproof checkpoints"
    if disturbed is None or undisturbed is None:
        if disturbed is undisturbed:
            detail = "neither run left a model or a checkpoint, so there is nothing to compare"
        else:
            detail = f"the {'interrupted' if disturbed is None else 'undisturbed'} run left none"
        return Verdict(is_identical=False, compared=compared, where="model.tar.gz", detail=detail)
    one, other = _members(disturbed), _members(undisturbed)
    for name in sorted({*one, *other}):
        if one.get(name) == other.get(name):
            continue
        if name not in one or name not in other:
            detail = f"only the {'interrupted' if name in one else 'undisturbed'} run wrote it"
        else:
            detail = f"other bytes (SHA-256 {one[name][:8]}… and {other[name][:8]}…)"
        return Verdict(is_identical=False, compared=compared, where=f"model.tar.gz/{name}", detail=detail)
    return Verdict(is_identical=True, compared=f"{compared}; files: {len(one)}")


def _members(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name.removeprefix("./")] = hashlib.sha256(file.read()).hexdigest()
        return found


def _download(service: TrainingService, uri: str | None) -> bytes | None:
    if uri is None:
        return None
    try:
        return service.download(uri)
    except FileNotFoundError:  # an empty model directory makes no archive, though the service still names one
        return None
