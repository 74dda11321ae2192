"""TensorBoard shows one curve for a run that was killed: no second folder, no point twice, no hole."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

VALIDATION = 5
EPOCH = 11


def curves(folder):
    """Return tag -> [(step, value)] as TensorBoard's own reader sees them."""
    (run,) = (folder / "logs" / "run").iterdir()
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


@pytest.mark.parametrize("every", [3, VALIDATION, EPOCH])
def test_one_curve_over_three_kills(zygote, tmp_path, every):
    """After three kills the curves are those of the undisturbed run, in one version folder, also if saves fall on
    validations or on epochs' ends."""
    scenario = {"tensorboard": True, "val_check_interval": VALIDATION, "every": every}
    assert zygote.train(tmp_path / "base", scenario) == 0, (tmp_path / "base" / "log.txt").read_text()
    folder = tmp_path / "killed"
    for point, step in (("training_step", 2), ("validation_step", 10), ("on_train_batch_end", 25)):
        assert zygote.train(folder, scenario, kill={"point": point, "step": step}) == -9
    assert zygote.train(folder, scenario) == 0, (folder / "log.txt").read_text()

    base, killed = curves(tmp_path / "base"), curves(folder)

    assert {"train_loss_step", "train_loss_epoch", "val_loss", "epoch"} <= base.keys()
    assert base == killed
    for points in killed.values():
        steps = [step for step, _ in points]
        assert steps == sorted(steps)
