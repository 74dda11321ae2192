"""TensorBoard shows one curve for a run that was killed: no second folder, no point twice, no hole."""

import os
import random
import shutil
import signal
import threading
import time

import boto3
import pytest
from board_reader import Board, assert_one_curve
from s3_proxy import S3Proxy

from spotproof.storage import open_storage

VALIDATION = 5
EPOCH = 11
BUCKET = "boards"
SCENARIO = {"tensorboard": True, "val_check_interval": VALIDATION, "every": 3, "words": True}
KILLS = (("training_step", 2), ("validation_step", 10), ("on_train_batch_end", 25))


@pytest.fixture
def s3(s3_server, monkeypatch):
    """What leads to the server, here and in the trainings; there is a bucket."""
    env = s3_server.environment()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", "us-east-1")
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    client.close()
    return env


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Give the board of an undisturbed training that logged to a folder."""
    boards = {}

    def board(**changes):
        key = tuple(sorted(changes.items()))
        if key not in boards:
            folder = tmp_path_factory.mktemp("base")
            assert zygote.train(folder, {**SCENARIO, **changes}) == 0, log(folder)
            boards[key] = Board(the_one_version(folder))
        return boards[key]

    return board


def log(folder):
    return (folder / "log.txt").read_text()


def the_one_version(folder):
    (version,) = (folder / "logs" / "run").iterdir()
    return version


@pytest.mark.parametrize("every", [3, *(pytest.param(every, marks=pytest.mark.slow) for every in (VALIDATION, EPOCH))])
def test_one_curve_over_three_kills(zygote, undisturbed, tmp_path, every):
    """After three kills the curves are those of the undisturbed run, in one version folder, also if saves fall on
    validations or on epochs' ends."""
    scenario = {**SCENARIO, "every": every}
    for point, step in KILLS:
        assert zygote.train(tmp_path, scenario, kill={"point": point, "step": step}) == -9
    assert zygote.train(tmp_path, scenario) == 0, log(tmp_path)

    base, killed = undisturbed(every=every), Board(the_one_version(tmp_path))

    assert {"./train_loss_step", "./train_loss_epoch", "./val_loss", "./epoch", "./own count"} <= base.curves.keys()
    assert "pair_a/pair" in base.curves
    assert_one_curve(killed, base)
    assert any(name.startswith("superseded.") for name in killed.names)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "damage", ["gone", "torn", pytest.param("older", marks=SLOW), pytest.param("scrambled end", marks=SLOW)]
)
def test_files_that_came_back_damaged_leave_no_hole(zygote, undisturbed, tmp_path, damage):
    """A mirror that was behind, or lost the files altogether: the checkpoint has what is missing."""
    assert zygote.train(tmp_path, SCENARIO, kill={"point": "training_step", "step": 14}) == -9
    damaged = 0
    for file in the_one_version(tmp_path).rglob("*tfevents*"):
        size = file.stat().st_size
        damaged += 1
        if damage == "gone":
            file.unlink()
        elif damage == "scrambled end":
            file.write_bytes(file.read_bytes()[: size // 2] + bytes(range(256)) * 20)
        else:
            with file.open("r+b") as opened:
                opened.truncate(size // 3 if damage == "older" else size // 3 * 2 + 5)
    assert damaged == 3
    assert zygote.train(tmp_path, SCENARIO) == 0, log(tmp_path)

    assert_one_curve(Board(the_one_version(tmp_path)), undisturbed())


def test_one_curve_in_s3(zygote, undisturbed, s3, tmp_path):
    """``save_dir=s3://…``: the same, though each attempt has an empty disk but for its checkpoints."""
    place = f"s3://{BUCKET}/{tmp_path.name}"
    for point, step in KILLS:
        assert zygote.train(tmp_path, SCENARIO, kill={"point": point, "step": step}, logs=place, env=s3) == -9
    assert zygote.train(tmp_path, SCENARIO, logs=place, env=s3) == 0, log(tmp_path)

    killed = Board(f"{place}/run/version_0")
    assert_one_curve(killed, undisturbed())
    assert "hparams.yaml" in killed.names
    folders = {entry.key.split("/")[1] for entry in open_storage(place).list() if "tfevents" in entry.key}
    assert folders == {"version_0"}
    assert not (tmp_path / "logs").exists()


def test_a_job_that_left_no_checkpoint_begins_its_curve_anew(zygote, undisturbed, s3, tmp_path):
    """Killed before a checkpoint came to S3, but after its first points did: they are void, and there is one folder."""
    place = f"s3://{BUCKET}/{tmp_path.name}"
    machine = {"logs": place, "env": {**s3, "TRAINING_JOB_NAME": "a-job"}}
    for _ in range(2):
        scenario = {**SCENARIO, "waits_at": 2}
        killer = threading.Thread(target=kill_when_seen, args=(tmp_path, f"{place}/run/version_0"), daemon=True)
        killer.start()
        assert zygote.train(tmp_path, scenario, **machine) == -9, log(tmp_path)
        killer.join()
        (tmp_path / "waits").unlink()
        shutil.rmtree(tmp_path / "checkpoints")
    assert zygote.train(tmp_path, SCENARIO, **machine) == 0, log(tmp_path)

    assert_one_curve(Board(f"{place}/run/version_0"), undisturbed())
    folders = {entry.key.split("/")[1] for entry in open_storage(place).list() if "tfevents" in entry.key}
    assert folders == {"version_0"}


def kill_when_seen(folder, place):
    """Kill the training that waits in *folder* once its points are in *place*."""
    while not (folder / "waits").exists() or not Board(place).curves.get("./train_loss_step"):
        time.sleep(0.05)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


def test_a_folder_that_is_mirrored_out_and_never_back(zygote, undisturbed, tmp_path):
    """As TensorBoardOutputConfig's: each attempt begins with an empty folder, and in S3 what was there stays. The
    second attempt is gone before a checkpoint tells of its file."""
    outside, scenario = tmp_path / "outside", {**SCENARIO, "words": False}
    for point, step in [("training_step", 8), ("training_step", 8), ("validation_step", 25), (None, 0)]:
        kill = {"point": point, "step": step} if point else None
        assert zygote.train(tmp_path, scenario, kill=kill) == (-9 if kill else 0), log(tmp_path)
        shutil.copytree(the_one_version(tmp_path), outside, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "logs")

    seen, base = Board(outside), undisturbed(words=False)
    assert seen.curves == base.curves
    assert seen.points.total() > base.points.total()


def test_curves_are_in_s3_while_the_training_runs(zygote, s3, tmp_path):
    """Whoever looks in the middle of the training sees what was logged so far."""
    place = f"s3://{BUCKET}/{tmp_path.name}"
    codes = []
    scenario = {**SCENARIO, "epochs": 1, "waits_at": 7}

    def train():
        codes.append(zygote.train(tmp_path, scenario, logs=place, env=s3))

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    seen = []
    while time.monotonic() < deadline and len(seen) < 7:
        seen = Board(f"{place}/run/version_0").curves.get("./train_loss_step", [])
        time.sleep(0.1)
    is_waiting = (tmp_path / "waits").exists()
    (tmp_path / "go").touch()
    thread.join(120)

    assert is_waiting
    assert [step for step, _ in seen] == list(range(7))
    assert codes == [0], log(tmp_path)


def test_an_s3_that_is_away_does_not_end_the_training(zygote, undisturbed, s3_server, s3, tmp_path):
    """TensorBoard's own writer would raise; here it is told once, and the curve is whole in the end."""
    place = f"s3://{BUCKET}/{tmp_path.name}"
    proxy = S3Proxy(s3_server.url)
    is_begun = tmp_path / "trace.jsonl"
    is_away = threading.Event()

    def fault(method, path):
        # From the first step on until something was refused for good.
        if method == "PUT" and "tfevents" in path and is_begun.exists() and not is_away.is_set():
            return "denied"
        return None

    proxy.fault = fault
    machine = {"env": {**s3, "AWS_ENDPOINT_URL_S3": proxy.url}, "logs": place}
    threading.Thread(target=lambda: (wait_for_text(tmp_path, "It is tried again"), is_away.set()), daemon=True).start()
    assert zygote.train(tmp_path, SCENARIO, **machine) == 0, log(tmp_path)
    proxy.close()

    assert proxy.faults["denied"]
    assert log(tmp_path).count("It is tried again") == 1
    assert_one_curve(Board(f"{place}/run/version_0"), undisturbed())


def wait_for_text(folder, text):
    while not (folder / "log.txt").exists() or text not in log(folder):
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_kills_in_s3(zygote, undisturbed, s3, tmp_path, seed):
    """Killed anywhere, and at any moment of an upload, up to five times."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    place = f"s3://{BUCKET}/{tmp_path.name}"
    kills = 0
    for _ in range(rng.randint(2, 5)):
        point = rng.choice(["training_step", "validation_step", "on_train_batch_end", "on_train_epoch_end"])
        kill = {"point": point, "step": rng.randint(1, 30)}
        code = zygote.train(tmp_path, SCENARIO, kill=kill, logs=place, env=s3, settle=rng.random() < 0.5)
        if code == 0:
            break
        kills += 1
        assert code == -9, log(tmp_path)
    else:
        assert zygote.train(tmp_path, SCENARIO, logs=place, env=s3) == 0, log(tmp_path)
    assert kills
    assert_one_curve(Board(f"{place}/run/version_0"), undisturbed())
    shutil.rmtree(tmp_path / "checkpoints")
