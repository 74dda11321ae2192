"""SpotCLI: what it adds to LightningCLI, and what it leaves to the user."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from spotproof.lightning import SpotCheckpoint, SpotCLI
from spotproof.lightning.cli import insert_subcommand
from spotproof.lightning.export import BestWeights, copy_weights, is_improvement, write_weights

SUBCOMMANDS = ("fit", "validate", "test", "predict")
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_model_summary=false", "--trainer.num_sanity_val_steps=0"]


class Crash(BaseException):
    """A kill, as far as code that is not prepared for it is concerned."""


class TinyModel(pl.LightningModule):
    """A layer whose validation loss is as *losses* say, epoch by epoch, and the last of them from then on."""

    def __init__(self, losses: list[float] | None = None, crash_after_save_of: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.losses = losses or [1.0]
        self.crash_after_save_of = crash_after_save_of

    def training_step(self, batch, batch_idx):
        if self.crash_after_save_of is not None:
            saved = [int(path.stem[5:]) for path in Path("checkpoints").glob("step-*.json")]
            if max(saved, default=0) >= self.crash_after_save_of:
                raise Crash
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.losses[min(self.current_epoch, len(self.losses) - 1)])


class TinyData(pl.LightningDataModule):
    """Four batches an epoch."""

    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        images = torch.arange(16, dtype=torch.float32).view(8, 2) / 16
        return DataLoader(TensorDataset(images), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(2, 2)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory outside SageMaker."""
    for name in ("SM_CHECKPOINT_DIR", "SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str, **kwargs) -> SpotCLI:
    return SpotCLI(TinyModel, TinyData, args=[*options, "--optimizer=SGD", "--optimizer.lr=0.1", *QUIET], **kwargs)


def prepare(*options: str, **kwargs) -> SpotCLI:
    """Build everything and train nothing."""
    return run(*options, run=False, **kwargs)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["fit"]),
        (["--data", "X"], ["fit", "--data", "X"]),
        (["fit", "--data", "X"], ["fit", "--data", "X"]),
        (["validate"], ["validate"]),
        (["--logger.name", "fit"], ["fit", "--logger.name", "fit"]),
        (["--config", "a.yaml", "test"], ["--config", "a.yaml", "test"]),
        (["--config=a.yaml", "test"], ["--config=a.yaml", "test"]),
        (["-c", "a.yaml", "--x=1"], ["fit", "-c", "a.yaml", "--x=1"]),
        (["--config", "fit"], ["fit", "--config", "fit"]),
        (["--help"], ["--help"]),
        (["--data=X", "--help"], ["fit", "--data=X", "--help"]),
    ],
)
def test_fit_may_be_left_out(words, expected):
    """Options without a subcommand mean ``fit``; a value that looks like a subcommand is none."""
    assert insert_subcommand(words, SUBCOMMANDS) == expected


def test_options_from_sys_argv(folder, monkeypatch):
    """What SageMaker passes, options and values apart and no subcommand, is trained on."""
    argv = [
        "train.py",
        "--data.batch_size",
        "4",
        "--optimizer",
        "SGD",
        "--optimizer.lr",
        "0.5",
        "--trainer.max_epochs",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", [*argv, *QUIET])

    cli = SpotCLI(TinyModel, TinyData)

    assert cli.subcommand == "fit"
    assert cli.datamodule.batch_size == 4
    assert isinstance(cli.trainer.optimizers[0], torch.optim.SGD)
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    assert cli.trainer.global_step == 2


def test_options_as_a_dict(folder):
    """A program may pass a dict, also without a subcommand."""
    cli = SpotCLI(
        TinyModel,
        TinyData,
        args={
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_model_summary": False},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
    )

    assert cli.trainer.global_step == 4


def test_validate_adds_nothing(folder):
    """The other subcommands are Lightning's own."""
    cli = run("validate")

    assert cli.spot is None
    assert not any(isinstance(callback, (SpotCheckpoint, BestWeights)) for callback in cli.trainer.callbacks)
    assert not (folder / "model").exists()


def test_defaults_from_a_file_beside_the_program(folder):
    """The file's values are defaults: the command line wins over them, and any subcommand takes them."""
    (folder / "trainer.yaml").write_text("data: {batch_size: 4}\nspot: {keep: 3}\nseed_everything: 9\n")
    parser_kwargs = SpotCLI.configured_by(folder / "trainer.yaml", folder / "absent.yaml")

    cli = run("--spot.keep=5", "--trainer.max_epochs=1", parser_kwargs=parser_kwargs)

    assert cli.datamodule.batch_size == 4
    assert cli.config.fit.spot.keep == 5
    assert cli.config.fit.seed_everything == 9
    assert set(parser_kwargs) == set(SUBCOMMANDS)


def test_the_default_seed_is_fixed(folder):
    """Two runs that say nothing about seeds are the same run."""
    first = prepare().model.layer.weight
    assert torch.equal(first, prepare().model.layer.weight)


# -- what is added ----------------------------------------------------------------------------------------------------


def test_spot_checkpoint_is_added_and_configured(folder):
    """The group ``spot`` holds the callback's options."""
    cli = prepare("--spot.every_n_steps=3", "--spot.every_n_seconds=7.5", f"--spot.dirpath={folder / 'ckpt'}")

    assert cli.spot in cli.trainer.callbacks
    assert cli.spot.dirpath == str(folder / "ckpt")


def test_the_user_s_own_callback_is_kept(folder):
    """One in the configuration, or in the program, makes the group ``spot`` idle."""
    config = {"class_path": "spotproof.lightning.SpotCheckpoint", "init_args": {"dirpath": str(folder / "own")}}
    for cli in (
        prepare(f"--trainer.callbacks={json.dumps([config])}"),
        prepare(trainer_defaults={"callbacks": SpotCheckpoint(folder / "own")}),
    ):
        found = [callback for callback in cli.trainer.callbacks if isinstance(callback, SpotCheckpoint)]
        assert found == [cli.spot]
        assert cli.spot.dirpath == str(folder / "own")


def test_logs_outside_sagemaker(folder):
    """The logger's group configures TensorBoard in the working directory."""
    logger = prepare("--logger.name=digits", "--logger.flush_secs=5").trainer.logger

    assert isinstance(logger, TensorBoardLogger)
    assert Path(logger.log_dir) == folder / "digits/version_0"
    assert logger._kwargs["flush_secs"] == 5


def test_logs_in_sagemaker(folder, monkeypatch):
    """Where a checkpoint directory is mirrored, the logs go into it, unless the user names a place."""
    monkeypatch.setenv("SM_CHECKPOINT_DIR", str(folder / "mirrored"))

    assert Path(prepare().trainer.logger.save_dir) == folder / "mirrored/tensorboard"
    assert prepare("--logger.save_dir=mine").trainer.logger.save_dir == "mine"


def test_the_user_s_own_logger_is_kept(folder):
    """``trainer.logger`` wins over the group, also when it says that there is none."""
    assert prepare("--trainer.logger=false").trainer.loggers == []
    own = '{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "csv"}}'
    assert prepare(f"--trainer.logger={own}").trainer.logger.save_dir == "csv"


def test_sagemaker_s_hosts_and_output(folder, monkeypatch):
    """The number of hosts and the output directory come from the platform."""
    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(folder / "out"))
    assert prepare().trainer.default_root_dir == str(folder / "out")

    monkeypatch.setenv("SM_HOSTS", '["algo-1", "algo-2"]')
    assert prepare().trainer.num_nodes == 2


def test_lightning_s_default_checkpoints_are_replaced(folder):
    """Nothing is written beside our checkpoints unless a ModelCheckpoint is configured, or asked for."""
    assert prepare().trainer.checkpoint_callbacks == []
    assert len(prepare("--trainer.enable_checkpointing=true").trainer.checkpoint_callbacks) == 1
    assert len(prepare(**monitored()).trainer.checkpoint_callbacks) == 1


def test_model_checkpoints_get_a_place_that_stays(folder):
    """A ModelCheckpoint without a place writes below the checkpoints; one with a place keeps it."""
    stays = ModelCheckpoint(monitor="val_loss")
    own = ModelCheckpoint(dirpath=folder / "own", monitor="other")

    cli = prepare(f"--spot.dirpath={folder / 'ckpt'}", trainer_defaults={"callbacks": [stays, own]})

    assert stays.dirpath == str(folder / "ckpt/best")
    assert own.dirpath == str(folder / "own")
    assert cli.best.monitor == "val_loss"


# -- the exported model -----------------------------------------------------------------------------------------------


def monitored(**options) -> dict[str, object]:
    return {"trainer_defaults": {"callbacks": [ModelCheckpoint(monitor="val_loss", **options)]}}


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model/model.pt", weights_only=True)


def test_final_weights_without_a_monitor(folder):
    """With nothing to choose by, the final weights are the model."""
    cli = run("--trainer.max_epochs=2")

    assert cli.best is None
    assert torch.equal(read_model(folder)["layer.weight"], cli.model.layer.weight)


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 2)])
def test_best_weights_by_the_monitor(folder, monkeypatch, mode, best):
    """The model is that of the best epoch, by the ModelCheckpoint's monitor and mode."""
    monkeypatch.setenv("SM_MODEL_DIR", str(folder / "model"))
    run("--trainer.max_epochs=4", "--model.losses=[3, 1, 4, 1]", **monitored(mode=mode, save_top_k=-1))

    files = {path.name: path for path in (folder / "checkpoints/best").iterdir()}
    expected = torch.load(files[f"epoch={best}-step={4 * best + 4}.ckpt"], weights_only=True)["state_dict"]
    found = read_model(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_monitor_that_is_never_logged(folder, caplog):
    """The final weights are exported, and the log says why."""
    run("--trainer.max_epochs=1", "--trainer.limit_val_batches=0", **monitored(save_on_train_epoch_end=False))

    assert "val_loss was never logged" in caplog.text
    assert (folder / "model/model.pt").exists()


def test_nothing_is_exported_by_a_run_that_did_not_end(folder):
    """A crash leaves no model behind, nor does a trial run."""
    with pytest.raises(Crash):
        run("--trainer.max_epochs=100", "--model.crash_after_save_of=3", "--spot.every_n_steps=3")
    assert not (folder / "model").exists()

    run("--trainer.fast_dev_run=true", f"--spot.dirpath={folder / 'other'}")
    assert not (folder / "model").exists()


def test_the_best_weights_survive_without_their_file(folder):
    """The best epoch lies before a kill, and its file is lost: the model is the undisturbed run's, to the last bit."""
    # Saves are in the background and take longer than these steps, so there must be enough of them.
    options = ("--trainer.max_epochs=40", "--model.losses=[2, 1, 3]", "--spot.every_n_steps=1")
    run(*options, f"--spot.dirpath={folder / 'undisturbed'}", **monitored())
    expected = (folder / "model/model.pt").read_bytes()
    (folder / "model/model.pt").unlink()

    with pytest.raises(Crash):
        run(*options, "--model.crash_after_save_of=9", **monitored())
    for file in (folder / "checkpoints/best").iterdir():
        file.unlink()
    cli = run(*options, **monitored())

    assert cli.best.score == 1
    assert (folder / "model/model.pt").read_bytes() == expected
    versions = [path.name for path in (folder / "lightning_logs").iterdir()]
    assert sorted(versions) == ["version_0", "version_1"], "one of each run, not of each attempt"


def test_a_finished_run_exports_again(folder):
    """Started again after its end, for the export was cut say, it trains nothing and writes the same model."""
    run("--trainer.max_epochs=1", **monitored())
    expected = (folder / "model/model.pt").read_bytes()
    (folder / "model/model.pt").unlink()

    cli = run("--trainer.max_epochs=1", **monitored())

    assert cli.trainer.global_step == 4
    assert (folder / "model/model.pt").read_bytes() == expected


def test_the_user_s_ckpt_path_wins(folder):
    """``--ckpt_path`` is passed on as it is; a checkpoint of ours may be named, too."""
    run("--trainer.max_epochs=1", "--spot.every_n_steps=2")
    first = min(folder.glob("checkpoints/step-*.json"))

    cli = run("--trainer.max_epochs=1", f"--ckpt_path={first}")

    assert cli.trainer.ckpt_path == str(first)


@pytest.mark.parametrize(
    ("score", "best", "low", "high"),
    [(1, 2, True, False), (2, 1, False, True), (1, 1, False, False), (float("nan"), 1, False, False)],
)
def test_what_is_better(score, best, low, high):
    """Equal is not better, and NaN never is; any number is better than NaN."""
    assert (is_improvement(score, best, "min"), is_improvement(score, best, "max")) == (low, high)
    assert is_improvement(1, float("nan"), "min")


def test_equal_weights_make_equal_files(tmp_path):
    """Strides, views and aliases of the live tensors don't show in the file; tied weights stay tied."""
    base = torch.arange(48, dtype=torch.float32).view(2, 3, 2, 4)
    tied = base.clone()
    plain = {"a": base, "b": tied, "c": tied, "empty": torch.zeros(0)}
    big = torch.zeros(3, 2, 3, 2, 4)
    big[1] = base
    moved = base.to(memory_format=torch.channels_last)
    strange = {"a": big[1], "b": moved, "c": moved, "empty": torch.zeros(5)[:0], "extra": object()}

    for name, weights in (("plain", plain), ("strange", strange)):
        write_weights(tmp_path / name, copy_weights(weights))

    assert (tmp_path / "plain/model.pt").read_bytes() == (tmp_path / "strange/model.pt").read_bytes()
    loaded = torch.load(tmp_path / "plain/model.pt", weights_only=True)
    assert loaded["b"].data_ptr() == loaded["c"].data_ptr()
    assert torch.equal(loaded["a"], base)
