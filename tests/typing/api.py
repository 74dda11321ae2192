"""The public names, used as a user would; type-checked, never run."""

import torch

from spotproof.checkpoint import Checkpointer, Difference, first_difference, newest_verified
from spotproof.lightning import SpotCheckpoint
from spotproof.storage import open_storage

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
