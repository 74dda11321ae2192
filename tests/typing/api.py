"""The public names, used as a user would; type-checked, never run."""

import torch

from spotproof.checkpoint import Checkpointer, Difference, first_difference, newest_verified, resumable_loader
from spotproof.huggingface import SpotTrainer, SpotTrainerMixin
from spotproof.lightning import SpotCheckpoint
from spotproof.loop import SpotLoop
from spotproof.storage import open_storage
from spotproof.testing import CallKills, ScriptKills, kill_at_every_call, kill_script

spot = SpotCheckpoint("checkpoints", every_n_steps=50, every_n_seconds="auto", keep=3)
path: str | None = spot.latest()

model = torch.nn.Linear(2, 2)
checkpointer = Checkpointer("s3://bucket/prefix")
checkpointer.register("model", model)
checkpointer.register("optimizer", torch.optim.SGD(model.parameters(), 0.1))
step: int | None = checkpointer.restore()
saved: bool = checkpointer.save(1, meta={"epoch": 0}, wait=True)
checkpointer.close()

storage = open_storage("checkpoints")
manifest = newest_verified(storage)
if manifest is not None:
    difference: Difference | None = first_difference(manifest, storage, manifest, storage)


def train(checkpointer: Checkpointer) -> None:
    checkpointer.register("model", model)
    for step in range(checkpointer.restore() or 0, 3):
        checkpointer.save(step + 1)


calls: CallKills = kill_at_every_call(train, "kills")
met: str = calls.kills[0].call
report: ScriptKills = kill_script(["python", "train.py", "{checkpoints}"], "rehearsal", num_kills=3, seed=1)
report.check()
first: Difference | None = report.difference

loader = resumable_loader(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(4, 2))))
with SpotLoop("checkpoints", every_n_steps=10, every_n_seconds=None, notices=["sigterm", "ec2"]) as loop:
    loop.register("model", model)
    loop.register("loader", loader)
    done: int = loop.begin()
    for _ in loader:
        done += 1
        loop.step_done(done, epoch=0)
        if loop.is_leaving:
            break


class Mine(SpotTrainerMixin):
    """A Trainer of one's own."""


trainer = SpotTrainer(model=model, spot=SpotLoop("checkpoints", every_n_seconds="auto"))
trainer.train()
