"""Hugging Face: the Trainer that resumes exactly. The only room that imports transformers and accelerate.

In: a Trainer's arguments. Out: checkpoints between two optimizer steps, exact resumes. Who may import it: users'
scripts.
"""

from spotproof.huggingface.trainer import SpotTrainer, SpotTrainerMixin

__all__ = ["SpotTrainer", "SpotTrainerMixin"]
