"""A Trainer's training of a tiny BERT, with what is random in it; told line by line. Arguments: folder, scenario, and
``stock`` for Hugging Face's own Trainer."""

import dataclasses
import hashlib
import json
import random
import sys

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from spotproof.huggingface import SpotTrainer
from spotproof.loop import SpotLoop


class Texts(Dataset):
    """Random words, some of them masked at random each time: by torch, numpy, python, and a generator of its own."""

    def __init__(self, length):
        self.length, self.rng = length, np.random.default_rng(4)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        words = (torch.arange(12) * (index + 3)) % 50 + 5
        chance = torch.rand(12) + 0.3 * random.random() + 0.3 * np.random.rand() + 0.3 * self.rng.random()
        return {"input_ids": torch.where(chance > 0.5, words, 4), "labels": int(words.sum()) % 3, "id": index}


class Stream(IterableDataset):
    """The same, one after another, with a position."""

    def __init__(self, length):
        self.texts, self.position = Texts(length), 0

    def __iter__(self):
        while self.position < self.texts.length:
            self.position += 1
            yield self.texts[self.position - 1]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Ledger(TrainerCallback, ExportableState):
    """Tells what happens."""

    def __init__(self):
        self.num_logs = 0

    def state(self):
        return {"args": {}, "attributes": {"num_logs": self.num_logs}}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.num_logs += 1
        kept = {name: value for name, value in logs.items() if not name.endswith(("_runtime", "_per_second"))}
        if "loss" not in logs:  # evaluations and the summary at the end
            print(f"epoch {'-'.join(sorted(kept)[:1])}@{state.global_step} {self.num_logs} {kept}", flush=True)

    def on_evaluate(self, args, state, control, **kwargs):
        print(f"evaluated at {state.global_step}", flush=True)


class Told:
    """Tells the ids, the loss and the rate of each step."""

    ids = None

    def get_batch_samples(self, *args):
        batches, count = super().get_batch_samples(*args)
        if self.ids is None:
            print(f"from step {self.state.global_step}", flush=True)
        self.ids = [batch.pop("id").tolist() for batch in batches]
        print(f"fetched {self.state.global_step}", flush=True)
        return batches, count

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        rate = self.lr_scheduler.get_last_lr()[0]
        self.losses = [*getattr(self, "losses", []), loss.item().hex()][-len(self.ids) :]
        print(f"step {self.state.global_step + 1} {self.ids} {self.losses[-1]} {rate:.4e}", flush=True)
        return loss

    def prediction_step(self, model, inputs, *args, **kwargs):
        inputs.pop("id", None)
        return super().prediction_step(model, inputs, *args, **kwargs)


class ToldTrainer(Told, SpotTrainer):
    pass


class ToldStockTrainer(Told, Trainer):
    pass


SCENARIOS = {
    "plain": {},
    "workers": {"dataloader_num_workers": 2},
    "persistent": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "eval_steps": 5},
    "accumulation": {"gradient_accumulation_steps": 3, "eval_steps": 2, "num_train_epochs": 3.0},
    "max_steps": {"max_steps": 23, "lr_scheduler_type": "cosine", "warmup_steps": 4},
    "epochs": {"eval_strategy": "epoch", "lr_scheduler_type": "reduce_lr_on_plateau", "logging_strategy": "epoch"},
    "best": {"save_strategy": "best", "load_best_model_at_end": True, "early_stopping": 2, "eval_steps": 3},
    "stream": {"max_steps": 23, "stream": True},
    "sequential": {"train_sampling_strategy": "sequential", "dataloader_drop_last": True, "eval_on_start": True},
    "no_limits": {"max_grad_norm": 0.0, "optim": "sgd", "neftune_noise_alpha": 2.0, "label_smoothing_factor": 0.1},
}
DEFAULTS = {
    "num_train_epochs": 2.5,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "no",
    "logging_steps": 3,
    "metric_for_best_model": "eval_loss",
    "include_num_input_tokens_seen": "all",
}


def main(folder, name, is_stock=False):
    torch.manual_seed(0)
    options = {**DEFAULTS, **SCENARIOS[name]}
    data = Stream(42) if options.pop("stream", False) else Texts(42)
    patience = options.pop("early_stopping", None)
    config = BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    args = TrainingArguments(
        folder + "/../output",
        per_device_train_batch_size=4,
        per_device_eval_batch_size=8,
        learning_rate=3e-3,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
        **options,
    )
    spot = {"spot": SpotLoop(folder, every_n_steps=4, every_n_seconds=None)}
    trainer = (ToldStockTrainer if is_stock else ToldTrainer)(
        model=BertForSequenceClassification(config),
        args=args,
        train_dataset=data,
        eval_dataset=Texts(20),
        callbacks=[Ledger(), *([EarlyStoppingCallback(patience)] if patience else [])],
        **({} if is_stock else spot),
    )
    output = trainer.train()
    if trainer.ids is None:
        print(f"from step {trainer.state.global_step}")  # nothing was left to train
    history = json.dumps([*trainer.state.log_history[:-1]], sort_keys=True)
    kept = [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
        for entry in json.loads(history)
    ]
    weights = b"".join(tensor.numpy().tobytes() for tensor in trainer.model.state_dict().values())
    state = {**dataclasses.asdict(trainer.state), "log_history": kept, "stateful_callbacks": None}
    state["best_model_checkpoint"] = (state["best_model_checkpoint"] or "").rpartition("/")[2]
    print(f"epoch state {json.dumps(state, sort_keys=True)} {output.training_loss.hex()}")
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]} {torch.rand(()).item()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
