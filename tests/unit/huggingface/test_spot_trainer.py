"""What SpotTrainer refuses and says before it trains, so that nobody learns it from a resume."""

import logging

import pytest
import torch

pytest.importorskip("transformers")

from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback, TrainingArguments

from spotproof.checkpoint import Checkpointer, newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.errors import ResumeMismatch, SpecError
from spotproof.events import AttemptEnded, Resumed, Warned
from spotproof.huggingface import SpotTrainer
from spotproof.loop import SpotLoop


class Points(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"x": torch.full((2,), float(index)), "labels": torch.tensor(index % 2)}


class Stream(IterableDataset):
    """Without a position."""

    def __iter__(self):
        return (Points()[index] for index in range(8))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Counter(TrainerCallback):
    """Remembers, and does not say so."""

    def __init__(self):
        self.seen = 0


def make(folder, data=None, callbacks=(), data_collator=None, **options):
    args = TrainingArguments(
        str(folder / "output"),
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    spot = SpotLoop(folder / "checkpoints", every_n_steps=2, every_n_seconds=None)
    return SpotTrainer(
        model=Model(),
        args=args,
        train_dataset=data or Points(),
        data_collator=data_collator,
        callbacks=list(callbacks),
        spot=spot,
    )


def events(trainer, attempt, kind):
    return [event for event in read_events(trainer.spot.checkpointer.storage, attempt) if isinstance(event, kind)]


def test_its_own_resume_is_refused(tmp_path):
    """There would be two truths."""
    with pytest.raises(SpecError, match="Call train\\(\\) without it"):
        make(tmp_path).train(resume_from_checkpoint="somewhere")


def test_a_search_for_the_batch_size_is_refused(tmp_path):
    """Before anything is trained."""
    with pytest.raises(SpecError, match="auto_find_batch_size"):
        make(tmp_path, auto_find_batch_size=True).train()


def test_a_second_training_is_refused(tmp_path):
    """It would go on from the end of the first."""
    trainer = make(tmp_path, max_steps=2)
    trainer.train()
    with pytest.raises(SpecError, match="a second time"):
        trainer.train()


def test_a_forgetful_callback_is_named(tmp_path, caplog):
    """With the remedy; those that say their state, and transformers' own, are not."""
    make(tmp_path, callbacks=[Counter()], max_steps=2).train()

    said = [record.message for record in caplog.records if "in no checkpoint" in record.message]
    assert len(said) == 1
    assert said[0].startswith("Counter is a callback")


class Shaky:
    """A collator with randomness of its own, made when it is needed first."""

    def __init__(self):
        self.seed, self.generator = 5, None

    def __call__(self, samples):
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(self.seed)
        x = torch.stack([sample["x"] for sample in samples])
        return {
            "x": x + torch.rand(x.shape, generator=self.generator),
            "labels": torch.stack([sample["labels"] for sample in samples]),
        }


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collator_that_seeds_itself_is_named_where_it_is_not_exact(tmp_path, caplog, workers):
    """In loader workers nobody knows its generators."""
    make(tmp_path, data_collator=Shaky(), max_steps=2, dataloader_num_workers=workers).train()

    assert ("Shaky has random-number generators of its own" in caplog.text) == (workers > 0)


def test_a_collator_that_seeds_itself_goes_on(tmp_path):
    """Without workers: its generator is made, if it is not there yet, and stands where it stood."""

    class Fails(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            killed.spot.checkpointer.wait()  # else a save that comes due while one is written waits for the next step
            if state.global_step == 5:
                raise RuntimeError("a bug")

    torch.manual_seed(0)
    base = make(tmp_path / "base", data_collator=Shaky(), max_steps=8)
    base.train()
    torch.manual_seed(0)
    killed = make(tmp_path / "killed", data_collator=Shaky(), max_steps=8, callbacks=[Fails()])
    with pytest.raises(RuntimeError, match="a bug"):
        killed.train()
    torch.manual_seed(1)
    resumed = make(tmp_path / "killed", data_collator=Shaky(), max_steps=8)
    resumed.train()

    (event,) = events(resumed, 1, Resumed)
    assert event.step == 4
    for one, other in zip(base.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_data_without_a_position_is_named(tmp_path):
    """At the start, as an event, too."""
    trainer = make(tmp_path, data=Stream(), max_steps=2)
    trainer.train()

    (warned,) = events(trainer, 0, Warned)
    assert "The position in the training data (Stream) can't be saved" in warned.message


def test_a_foreign_folder_is_refused(tmp_path):
    """What another program wrote is not gone on from, nor replaced."""
    other = Checkpointer(tmp_path / "checkpoints")
    other.register("model", torch.nn.Linear(1, 1))
    other.save(5, wait=True)

    with pytest.raises(ResumeMismatch, match="holds no training of a SpotTrainer, only model"):
        make(tmp_path, max_steps=2).train()


def test_a_finished_training_stays_finished(tmp_path, caplog):
    """It gives the same result again, and says what it does not do; attempts tell where they began and ended."""
    first = make(tmp_path, max_steps=4)
    output = first.train()
    caplog.set_level(logging.WARNING)
    second = make(tmp_path, max_steps=6)
    again = second.train()

    assert (again.global_step, again.training_loss) == (output.global_step, output.training_loss)
    assert "has ended at step 4; the steps to 6 are not trained" in caplog.text
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert newest_verified(second.spot.checkpointer.storage).step == 4
    assert [event.step for event in events(second, 1, Resumed)] == [4]
    assert [[event.outcome for event in events(second, attempt, AttemptEnded)] for attempt in (0, 1)] == [
        ["finished"],
        ["finished"],
    ]
