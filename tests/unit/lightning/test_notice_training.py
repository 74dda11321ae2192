"""Handlers around real trainings in this process: put back however a training ends."""

import logging
import signal
import threading
import warnings

import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from spotproof.lightning import SpotCheckpoint

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGURG, signal.SIGINT)


class Ending(BoringModel):
    """A model whose third step ends the training in some way."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            self.end()
        return super().training_step(batch, batch_idx)


def fit(folder, end=lambda: None, spot=None, max_epochs=1):
    """Train for a few steps."""
    spot = spot or SpotCheckpoint(folder, every_n_steps=1, notices=["sigterm", "sigusr1", "ec2"])
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        limit_train_batches=4,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[spot],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders
        trainer.fit(Ending(end), ckpt_path=spot.latest())
    return spot


def fail():
    raise RuntimeError("a bug in the model")


def interrupt():
    raise KeyboardInterrupt


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("end", "error", "code"),
    [
        (lambda: None, None, None),
        (fail, RuntimeError, None),
        (interrupt, SystemExit, 1),
        (terminate, SystemExit, 143),
    ],
    ids=["complete", "error", "ctrl-c", "notice"],
)
def test_handlers_are_put_back(tmp_path, monkeypatch, end, error, code):
    """After the end, an error, Ctrl-C and a notice; and Ctrl-C ends a training as Lightning does without us."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    before = [signal.getsignal(number) for number in NUMBERS]

    if error is None:
        fit(tmp_path)
    else:
        with pytest.raises(error) as caught:
            fit(tmp_path, end)
        assert getattr(caught.value, "code", None) == code

    assert before == [signal.getsignal(number) for number in NUMBERS]


def test_outside_the_main_thread_it_is_said_once(tmp_path, caplog):
    """Training goes on without signals there, with one warning for both calls of fit()."""
    spots, errors = [], []

    def run():
        try:
            spots.append(fit(tmp_path))
            fit(tmp_path, spot=spots[0], max_epochs=2)
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=run)
    with caplog.at_level(logging.WARNING):
        thread.start()
        thread.join()

    assert not errors
    assert caplog.text.count("SIGTERM can't be noticed, because training runs outside the main thread") == 1
