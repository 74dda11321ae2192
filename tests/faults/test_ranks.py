"""Two ranks that train together, killed and resumed, end as an undisturbed training: every rank, bit for bit."""

import shutil

import pytest
from ranks_rig import WORLD, Mirror, assert_same, events, starts, traces

from spotproof.checkpoint import committed_steps, newest_verified
from spotproof.events import (
    AttemptEnded,
    AttemptStarted,
    CheckpointCommitted,
    CheckpointRejected,
    NoticeReceived,
    Resumed,
    SaveFailed,
)
from spotproof.storage import LocalStorage

pytestmark = pytest.mark.timeout(900)


KILLS = {
    "of rank 0": {"rank": 0, "at": "step 8"},
    "of rank 1": {"rank": 1, "at": "step 8"},
    "after the packs of rank 1": {"rank": 1, "commit": "packs", "time": 3},
    "before the manifest": {"rank": 0, "commit": "manifest", "time": 3},
    "after the manifest": {"rank": 0, "commit": "after", "time": 3},
}


@pytest.mark.parametrize("kill", [KILLS["of rank 1"], KILLS["before the manifest"]])
def test_a_killed_loop_ends_as_an_undisturbed_one(ranks, undisturbed, tmp_path, kill):
    """Samples, noise, dropout, averages and sums of each rank, with a kill of one rank, or within a commit."""
    base = undisturbed("loop")

    ranks.kill("loop", tmp_path, kill)
    assert ranks.run("loop", tmp_path) == [0, 0]

    assert starts(tmp_path) == ["0", "6" if "at" in kill else "3"]
    assert_same(tmp_path, base)


def test_a_killed_lightning_training_ends_as_an_undisturbed_one(ranks, undisturbed, tmp_path):
    """Shuffled data that Lightning shares out, accumulation, validation, metrics and buffers of each rank's own."""
    base = undisturbed("lightning")

    ranks.kill("lightning", tmp_path, {"rank": 0, "at": "step 1 3"})
    ranks.kill("lightning", tmp_path, {"rank": 1, "at": "step 1 4"})
    assert ranks.run("lightning", tmp_path) == [0, 0]

    assert [event.step for event in events(tmp_path / "checkpoints", Resumed)] == [4, 4]
    assert_same(tmp_path, base)


def test_a_notice_on_one_host_leads_all_to_the_same_step(ranks, undisturbed, tmp_path):
    """SIGTERM comes to rank 1 alone, between two saves: both leave with a checkpoint of one step, and go on from it."""
    base = undisturbed("loop")

    exits = ranks.run("loop", tmp_path, kill={"rank": 1, "at": "step 7", "signal": 15})
    assert exits == [143, 143]
    assert ranks.run("loop", tmp_path) == [0, 0]

    (notice,) = events(tmp_path / "checkpoints", NoticeReceived)
    assert notice.signal == "SIGTERM"
    assert notice.step in (7, 8, 9)
    assert starts(tmp_path, 0) == starts(tmp_path, 1) == ["0", str(notice.step)]
    assert [event.outcome for event in events(tmp_path / "checkpoints", AttemptEnded)] == ["notice", "finished"]
    assert_same(tmp_path, base)


def test_separate_folders_that_a_platform_merges(ranks, undisturbed, tmp_path):
    """Each host has a folder of its own, all in one place of S3; the files of host 1 come late, the kill takes them."""
    base = undisturbed("loop")
    mirror = Mirror([tmp_path / "host-0", tmp_path / "host-1"], tmp_path / "s3", delays=(0, 3))

    for kill in ({"rank": 0, "at": "step 7"}, {"rank": 1, "at": "step 11"}):
        mirror.restore()
        with mirror:
            ranks.kill("loop", tmp_path / "run", kill, places=mirror.folders)
    mirror.restore()
    with mirror:
        assert ranks.run("loop", tmp_path / "run", places=mirror.folders) == [0, 0]
    mirror.drain()

    assert int(starts(tmp_path / "run")[-1]) > 0
    assert starts(tmp_path / "run", 0) == starts(tmp_path / "run", 1)
    assert_same(tmp_path / "run", base, tmp_path / "s3")


def test_nothing_is_dropped_before_every_host_has_uploaded_what_replaces_it(ranks, tmp_path):
    """Host 1 uploads nothing more: what both had uploaded stays, however many checkpoints rank 0 makes meanwhile."""
    hosts, often = [tmp_path / "host-0", tmp_path / "host-1"], {"every_n_steps": 1}
    for delays, at in (((0, 0), "step 6"), ((0, 10**6), "step 12")):
        mirror = Mirror(hosts, tmp_path / "s3", delays=delays)
        mirror.restore()
        with mirror:
            ranks.kill("loop", tmp_path / "run", {"rank": 0, "at": at}, places=hosts, spot=often)
    mirror.restore()

    assert ranks.run("loop", tmp_path / "run", places=hosts, spot=often) == [0, 0]

    first, second, third = starts(tmp_path / "run")
    assert first == "0"
    assert int(second) > 0
    assert third == second


def test_all_go_on_from_what_all_have(ranks, undisturbed, tmp_path):
    """What is whole on host 0 is torn on host 1, and another step is missing there: the next older one is taken."""
    base = undisturbed("loop")
    mirror = Mirror([tmp_path / "host-0", tmp_path / "host-1"], tmp_path / "s3")
    mirror.restore()
    keep_all = {"keep": 4}
    kill = {"rank": 0, "at": "step 11"}
    ranks.kill("loop", tmp_path / "run", kill, places=mirror.folders, spot=keep_all)
    mirror.drain()
    mirror.restore()
    newest, second, *_ = committed_steps(LocalStorage(tmp_path / "s3"))
    storage = LocalStorage(tmp_path / "host-1")
    torn = tmp_path / "host-1" / newest_verified(storage).ranks[1].state.key
    torn.write_bytes(torn.read_bytes()[:-1])
    (tmp_path / "host-1" / f"step-{second:010d}.json").unlink()

    assert ranks.run("loop", tmp_path / "run", places=mirror.folders, spot=keep_all) == [0, 0]

    assert (newest, second) == (9, 6)
    assert starts(tmp_path / "run", 0)[-1] == starts(tmp_path / "run", 1)[-1] == "3"
    rejected = events(tmp_path / "host-0", CheckpointRejected)
    assert [event.step for event in rejected] == [6, 9]
    assert all(event.reason.startswith("On rank 1: ") for event in rejected)
    assert traces(tmp_path / "run") == traces(base)


def test_equal_tensors_are_written_once(undisturbed):
    """Weights and optimizer are the same on all ranks, and lie in rank 0's packs; each has its own averages."""
    storage = LocalStorage(undisturbed("loop") / "checkpoints")
    manifest = newest_verified(storage)

    first, second = ({tensor.name: tensor.hash for tensor in rank.tensors} for rank in manifest.ranks)
    same = {name for name in first if first[name] == second[name]}

    assert "model/module.0.weight" in same
    assert "model/module.1.running_mean" not in same
    assert set(manifest.ranks[0].packs) & set(manifest.ranks[1].packs)
    named = {file.key for file in manifest.files}
    assert manifest.total_bytes == sum(entry.size_bytes for entry in storage.list("packs/") if entry.key in named)
    (started,) = events(storage.root, AttemptStarted)
    assert started.config["world_size"] == WORLD


def test_three_ranks(ranks, tmp_path):
    """With three, the order in which gradients are summed matters: a resume goes on with that of before."""
    run, base = tmp_path / "run", tmp_path / "base"
    assert ranks.run("loop", base, places=[base / "checkpoints"] * 3) == [0, 0, 0]

    ranks.kill("loop", run, {"rank": 2, "at": "step 8"}, places=[run / "checkpoints"] * 3)
    assert ranks.run("loop", run, places=[run / "checkpoints"] * 3) == [0, 0, 0]

    assert_same(run, base)


def test_a_save_that_one_rank_cannot_make_is_given_up_everywhere(ranks, undisturbed, tmp_path):
    """The disk of one host is full for a while: one warning and one event, no manifest, and training goes on."""
    base = undisturbed("loop")

    assert ranks.run("loop", tmp_path, fault={"rank": 1, "full_until": 7}) == [0, 0]

    failed = events(tmp_path / "checkpoints", SaveFailed)
    assert failed
    assert all("Rank 1: OSError: [Errno 28]" in event.reason for event in failed)
    outputs = [(tmp_path / f"output-{rank}.txt").read_text() for rank in range(WORLD)]
    assert [output.count("could not be written") for output in outputs] == [1, 0]
    committed = [event.step for event in events(tmp_path / "checkpoints", CheckpointCommitted)]
    assert min(committed) >= 6
    assert committed[-1] == 12
    assert_same(tmp_path, base)


def test_another_number_of_ranks_is_refused(ranks, undisturbed, tmp_path):
    """The error names both numbers, in every process, and nothing is touched."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed("loop") / "checkpoints", folder / "checkpoints")
    before = sorted((folder / "checkpoints").rglob("*"))

    assert ranks.run("loop", folder, places=[folder / "checkpoints"] * 3, mourn=True) == [1, 1, 1]

    for rank in range(3):
        output = (folder / f"output-{rank}.txt").read_text()
        assert "written by a training of 2 processes; this one has 3 processes" in output
        assert "Resume with 2 processes" in output
    assert sorted((folder / "checkpoints").rglob("*")) == before


def test_a_newer_attempt_stops_all_ranks(ranks, tmp_path):
    """Somebody else begins in the same folder: every rank of the older training ends with the same error."""
    assert ranks.run("loop", tmp_path, fault={"rank": 0, "usurped_at": "step 4"}, mourn=True) == [1, 1]

    for rank in range(WORLD):
        assert "CheckpointConflict" in (tmp_path / f"output-{rank}.txt").read_text()


@pytest.mark.parametrize(
    ("program", "forgotten"),
    [
        ("loop", "spotproof.checkpoint.rng:RngState.load_state_dict"),
        ("lightning", "spotproof.lightning._private:restore_weights"),
    ],
)
def test_what_is_forgotten_is_found(ranks, undisturbed, tmp_path, program, forgotten):
    """The yardstick bites: a resume that forgets what belongs to each rank does not pass for exact."""
    base = undisturbed(program)
    ranks.kill(program, tmp_path, {"rank": 0, "at": "step 8" if program == "loop" else "step 1 3"})

    assert ranks.run(program, tmp_path, mutate=forgotten) == [0, 0]

    with pytest.raises(AssertionError):
        assert_same(tmp_path, base)
