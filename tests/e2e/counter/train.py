"""A training without torch: a number that depends on every step, checkpointed in Spotproof's own format.

``--mutant forget`` resumes at the right step with the wrong number: a rehearsal must find that. ``--mutant trusting``
takes the newest checkpoint without looking whether it is whole, as most programs do: chaos must find that.
``--mirrored_after 11``: the 12th step of each attempt waits until all saved before is in S3, so that what comes after
it does not depend on how fast the machine is. It gives up after some seconds: an upload can be lost on purpose.
"""

import argparse
import os
import time
from pathlib import Path

from spotproof.checkpoint.choose import committed_steps, newest_verified, read_manifest
from spotproof.checkpoint.manifest import (
    Manifest,
    RankFiles,
    StoredFile,
    TensorEntry,
    content_hash,
    format_manifest,
    manifest_key,
    state_key,
)
from spotproof.checkpoint.pack import PackTensor, format_header, pack_file, read_pack
from spotproof.contract import UPLOADED_SUFFIX
from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    Event,
    Progress,
    Resumed,
    StepsPlanned,
    event_file,
    progress_line,
    to_line,
)
from spotproof.storage import LocalStorage

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--every", type=int, default=5)
parser.add_argument("--step_seconds", type=float, default=0.03)
parser.add_argument("--mutant", default="none")
parser.add_argument("--fail_at", type=int, default=-1)
parser.add_argument("--mirrored_after", type=int, default=-1)
options = parser.parse_args()

storage = LocalStorage(os.environ["SM_CHECKPOINT_DIR"])
attempt = len(storage.list("events/"))
journal = storage.root / event_file(attempt)
journal.parent.mkdir(parents=True, exist_ok=True)


def record(event: Event) -> None:
    with journal.open("a") as file:
        file.write(to_line(event))


def save(step: int, value: int) -> None:
    began = time.perf_counter()
    weights, state = value.to_bytes(16, "little"), b"{}"
    digest = content_hash(weights)
    header = format_header([PackTensor("model/value", "uint8", (16,), 16, digest)])
    pack, rest = pack_file(header, 16, attempt), StoredFile(state_key(content_hash(state), attempt), len(state))
    storage.put(pack.key, [header, weights])
    storage.put(rest.key, [state])
    files = RankFiles(rest, (pack,), (TensorEntry("model/value", "uint8", (16,), digest, 0),))
    manifest = Manifest(step=step, run_id="r", attempt=attempt, ranks=(files,))
    storage.put(manifest.key, [format_manifest(manifest)])
    seconds = time.perf_counter() - began
    record(
        CheckpointCommitted(
            attempt=attempt, step=step, stall_seconds=seconds, durable_seconds=0, total_bytes=16, written_bytes=16
        )
    )


def wait_until_mirrored(patience_seconds: float = 2.5) -> None:
    given_up_at = time.monotonic() + patience_seconds
    saved = [path for path in storage.root.rglob("*") if path.suffix in (".json", ".state", ".safetensors")]
    while not all(path.with_name(path.name + UPLOADED_SUFFIX).exists() for path in saved):
        if time.monotonic() > given_up_at:
            return
        time.sleep(0.01)


def tell(step: int) -> None:
    progress = Progress(attempt=attempt, epoch=0, step=step)
    record(progress)
    print(progress_line(progress), flush=True)


record(AttemptStarted(attempt=attempt, run_id="r", config={}, versions={}))
record(StepsPlanned(attempt=attempt, total_steps=options.steps))
start, value = 0, 1
if options.mutant == "trusting":
    steps = committed_steps(storage)
    found = read_manifest(storage, manifest_key(steps[0])) if steps else None
else:
    found = newest_verified(storage)
if found is not None:
    start = found.step
    weights = bytearray(16)
    if options.mutant == "trusting":
        weights[:] = storage.get(found.ranks[0].packs[0].key)[-16:]
    else:
        read_pack(storage, found.ranks[0].packs[0], lambda *_: memoryview(weights))
    value = int.from_bytes(weights, "little")
    if options.mutant == "forget":
        value = 1
    record(Resumed(attempt=attempt, step=start, seconds=0.001))
tell(start)
for step in range(start + 1, options.steps + 1):
    time.sleep(options.step_seconds)
    if step == start + 1 + options.mirrored_after:
        wait_until_mirrored()
    value = (value * 6364136223846793005 + step) % 2**128
    if step == options.fail_at:
        raise RuntimeError(f"no step {step} today")
    if step % options.every == 0 or step == options.steps:
        save(step, value)
    tell(step)
Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(str(value))
record(AttemptEnded(attempt=attempt, outcome="finished", step=options.steps))
