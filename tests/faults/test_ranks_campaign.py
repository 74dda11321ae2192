"""Two ranks, killed at every kind of moment: the long campaign behind test_ranks.py."""

import random

import pytest
from ranks_rig import Mirror, assert_same, starts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMMITS = [
    {"rank": rank, "commit": part, "time": time}
    for rank, part in ((0, "packs"), (1, "packs"), (0, "manifest"), (0, "after"))
    for time in (1, 2, 3)
]
STEPS = {
    "loop": [f"step {step}" for step in (1, 3, 6, 7, 12)],
    "lightning": ["step 0 0", "step 0 3", "val 2 1", "epoch 0", "step 1 0", "step 1 5", "val 5 0", "epoch 1"],
}


@pytest.mark.parametrize("program", ["loop", "lightning"])
@pytest.mark.parametrize("kill", COMMITS, ids=str)
def test_a_kill_within_a_commit(ranks, undisturbed, tmp_path, program, kill):
    """Between the packs of the ranks and the manifest, before and after it; at the first save and at later ones."""
    base = undisturbed(program)

    ranks.kill(program, tmp_path, kill)
    assert ranks.run(program, tmp_path) == [0, 0]

    assert_same(tmp_path, base)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("program", "at"), [(program, at) for program, steps in STEPS.items() for at in steps])
def test_a_kill_of_one_rank(ranks, undisturbed, tmp_path, program, at, rank, num_workers):
    """In the first steps, in validations, at the ends of epochs and of the training; with workers and without."""
    base = undisturbed(program, num_workers=num_workers)

    ranks.kill(program, tmp_path, {"rank": rank, "at": at}, num_workers=num_workers)
    assert ranks.run(program, tmp_path, num_workers=num_workers) == [0, 0]

    assert_same(tmp_path, base)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("put", range(1, 9))
def test_a_kill_at_any_file(ranks, undisturbed, tmp_path, put, rank):
    """Each file that a rank writes is once the last thing it does: staged, and not in its place yet."""
    base = undisturbed("loop")

    ranks.kill("loop", tmp_path, {"rank": rank, "put": put})
    assert ranks.run("loop", tmp_path) == [0, 0]

    assert_same(tmp_path, base)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("program", ["loop", "lightning"])
def test_many_kills_in_separate_folders(ranks, undisturbed, tmp_path, program, seed):
    """Files of one host or the other are late, in every attempt anew; nothing but the merged place survives."""
    base = undisturbed(program)
    rng = random.Random(seed)
    print("seed", seed)
    hosts = [tmp_path / "host-0", tmp_path / "host-1"]
    for _ in range(4):
        mirror = Mirror(hosts, tmp_path / "s3", delays=(rng.choice([0, 2, 8]), rng.choice([0, 2, 8])))
        mirror.restore()
        kill = {"rank": rng.randrange(2), "at": rng.choice(STEPS[program][1:])}
        with mirror:
            exits = ranks.run(program, tmp_path / "run", places=hosts, kill=kill, settle=rng.random() < 0.7)
        if exits == [0, 0]:  # it went on from beyond the kill
            mirror.drain()
            break
    else:
        mirror.restore()
        with mirror:
            assert ranks.run(program, tmp_path / "run", places=hosts) == [0, 0]
        mirror.drain()

    assert starts(tmp_path / "run", 0) == starts(tmp_path / "run", 1) or program == "lightning"
    assert_same(tmp_path / "run", base, tmp_path / "s3")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("program", "at"), [("loop", "step 1"), ("loop", "step 11"), ("lightning", "step 0 2")])
def test_a_notice_on_one_rank(ranks, undisturbed, tmp_path, program, at, rank):
    """Both ranks leave at one step, whoever was told."""
    base = undisturbed(program)

    assert ranks.run(program, tmp_path, kill={"rank": rank, "at": at, "signal": 15}) in ([143, 143], [0, 0])
    assert ranks.run(program, tmp_path) == [0, 0]

    assert_same(tmp_path, base)


@pytest.mark.parametrize("at", ["step 0 2", "step 1 3"])
def test_three_ranks_under_lightning(ranks, tmp_path, at):
    """With three, the order in which gradients are summed matters: a resume goes on with that of before."""
    run, base = tmp_path / "run", tmp_path / "base"
    assert ranks.run("lightning", base, places=[base / "checkpoints"] * 3) == [0, 0, 0]

    ranks.kill("lightning", run, {"rank": 2, "at": at}, places=[run / "checkpoints"] * 3)
    assert ranks.run("lightning", run, places=[run / "checkpoints"] * 3) == [0, 0, 0]

    assert_same(run, base)
