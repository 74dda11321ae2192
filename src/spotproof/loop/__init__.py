"""What every training loop needs between two steps: saves when they are due, notices, progress, and how it ends.

In: a loop that says when a step is done. Out: checkpoints, events, and a process that leaves in time. Who may import
it: ``lightning`` and ``huggingface``, which are loops of others; for a loop of your own there is :class:`SpotLoop`.
"""

from spotproof.loop.spot_loop import SpotLoop

__all__ = ["SpotLoop"]
