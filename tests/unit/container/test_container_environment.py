"""The program finds AWS's variables, and ours, for the job that it is part of."""

import json
from pathlib import Path

import pytest

from spotproof.container.config import parse_config, place_below, read_config
from spotproof.container.environment import Machine, build_environment
from spotproof.container.program import build_command, choose_program
from spotproof.errors import SpecError

BASE = Path("/base/ml")
RESOURCES = {
    "current_host": "algo-2",
    "current_instance_type": "ml.m5.large",
    "current_group_name": "homogeneousCluster",
    "hosts": ["algo-1", "algo-2"],
    "instance_groups": [
        {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": ["algo-2", "algo-1"]}
    ],
    "network_interface_name": "eth0",
}


def environment(*, inherited=None, **files):
    contents = {"hyperparameters": {}, "channels": {}, "resources": {}, "checkpoints": {}, **files}
    return build_environment(
        parse_config(**contents),
        BASE,
        program="train.py",
        machine=Machine(num_cpus=2, num_gpus=0),
        inherited=inherited or {},
    )


def test_directories():
    """Every directory lies below the base directory."""
    found = environment(channels={"training": {}, "my-val": {}}, checkpoints={"LocalPath": "/opt/ml/checkpoints"})

    assert found["SM_MODEL_DIR"] == "/base/ml/model"
    assert found["SM_OUTPUT_DATA_DIR"] == "/base/ml/output/data"
    assert found["SM_CHANNEL_TRAINING"] == "/base/ml/input/data/training"
    assert found["SM_CHANNEL_MY-VAL"] == "/base/ml/input/data/my-val"
    assert found["SM_CHECKPOINT_DIR"] == "/base/ml/checkpoints"
    assert json.loads(found["SM_CHANNELS"]) == ["my-val", "training"]


def test_no_checkpoint_config_no_variable():
    """A job without CheckpointConfig has no checkpoint directory to believe in."""
    assert "SM_CHECKPOINT_DIR" not in environment()


@pytest.mark.parametrize(
    ("path", "placed"),
    [
        ("/opt/ml/checkpoints", "/base/ml/checkpoints"),
        ("/opt/ml/checkpoints/", "/base/ml/checkpoints"),
        ("/opt/ml", "/base/ml"),
        ("/opt/mlx", "/opt/mlx"),
        ("/tmp/ckpt", "/tmp/ckpt"),
    ],
)
def test_only_paths_below_opt_ml_move_with_the_base(path, placed):
    """A LocalPath elsewhere is meant as it is."""
    assert place_below(BASE, path) == placed


def test_hyperparameters():
    """Decoded hyperparameters are there together, one by one, and as arguments."""
    found = environment(hyperparameters={"optimizer.lr": "0.1", "data": '"X"', "sagemaker_program": "t.py"})

    assert found["SM_HPS"] == '{"data":"X","optimizer.lr":0.1}'
    assert found["SM_HP_DATA"] == "X"
    assert found["SM_HP_OPTIMIZER.LR"] == "0.1"
    assert found["SM_USER_ARGS"] == '["--data","X","--optimizer.lr","0.1"]'


def test_what_the_sdk_says_of_its_code():
    """Where the code came from, job and region, and what is for a framework, as AWS's toolkit tells them."""
    found = environment(
        hyperparameters={
            "sagemaker_submit_directory": '"s3://b/source.tar.gz"',
            "sagemaker_program": '"train.py"',
            "sagemaker_job_name": '"told"',
            "sagemaker_region": '"eu-west-1"',
            "sagemaker_torch_distributed_enabled": "true",
        },
        inherited={"TRAINING_JOB_NAME": "real", "AWS_REGION": "us-east-1"},
    )
    told = json.loads(found["SM_TRAINING_ENV"])

    assert found["SM_MODULE_DIR"] == told["module_dir"] == "s3://b/source.tar.gz"
    assert found["SAGEMAKER_JOB_NAME"] == told["job_name"] == "real"
    assert found["SAGEMAKER_REGION"] == "eu-west-1"
    assert json.loads(found["SM_FRAMEWORK_PARAMS"]) == {"sagemaker_torch_distributed_enabled": True}
    assert told["additional_framework_parameters"] == {"sagemaker_torch_distributed_enabled": True}
    assert not {"framework_params", "hps", "user_args", "channels"} & set(told)
    assert (found["SM_FRAMEWORK_MODULE"], found["SM_DISTRIBUTION_INSTANCE_GROUPS"]) == ("", "[]")


def test_an_image_with_its_own_code():
    """Without the SDK the code is where the image has it, and the region is the platform's."""
    found = environment(inherited={"AWS_REGION": "us-east-1"})

    assert found["SM_MODULE_DIR"] == "/base/ml/code"
    assert found["SAGEMAKER_REGION"] == "us-east-1"
    assert found["SM_FRAMEWORK_PARAMS"] == "{}"


def test_cluster_of_two_hosts():
    """The second of two hosts knows its rank, their number and the first one's name."""
    found = environment(resources=RESOURCES)

    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RANK", "WORLD_SIZE")
    assert [found[name] for name in names] == ["algo-1", "7777", "1", "1", "2"]
    assert "LOCAL_RANK" not in found, "Lightning would start no processes"
    assert json.loads(found["SM_HOSTS"]) == ["algo-1", "algo-2"]
    assert found["SM_CURRENT_HOST"] == "algo-2"
    assert json.loads(found["SM_CURRENT_INSTANCE_GROUP_HOSTS"]) == ["algo-2", "algo-1"]
    assert json.loads(found["SM_TRAINING_ENV"])["is_master"] is False
    assert json.loads(found["SM_RESOURCE_CONFIG"]) == RESOURCES


def test_several_gpus_a_host_are_lightnings_to_number():
    """With a process for each of several GPUs the host's number is no rank."""
    found = build_environment(
        parse_config(hyperparameters={}, channels={}, resources=RESOURCES, checkpoints={}),
        BASE,
        program="train.py",
        machine=Machine(num_cpus=2, num_gpus=4),
        inherited={},
    )
    assert (found["NODE_RANK"], "RANK" in found) == ("1", False)


def test_one_host_is_no_cluster():
    """A single host must not make torch look for others."""
    assert "WORLD_SIZE" not in environment()


def test_the_request_s_environment_wins():
    """A variable of the request's Environment is not overwritten."""
    found = environment(inherited={"SM_MODEL_DIR": "/elsewhere", "PYTHONUNBUFFERED": "0", "OWN": "1"})

    assert (found["SM_MODEL_DIR"], found["PYTHONUNBUFFERED"], found["OWN"]) == ("/elsewhere", "0", "1")


def test_missing_files_are_empty_ones(tmp_path):
    """An image tried by hand, without /opt/ml, is one host without channels."""
    config = read_config(tmp_path)

    assert (config.hosts, dict(config.hyperparameters), config.checkpoint_path) == (["algo-1"], {}, None)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_damaged_file_is_named(tmp_path, content):
    """A file that is cut, foreign or binary is named in the error."""
    path = tmp_path / "input/config/hyperparameters.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin1"))

    with pytest.raises(SpecError, match=r"hyperparameters\.json cannot be read"):
        read_config(tmp_path)


def test_host_that_is_not_among_the_hosts():
    """A resource configuration that contradicts itself is refused before ranks are given out."""
    with pytest.raises(SpecError, match="algo-9"):
        environment(resources={"current_host": "algo-9", "hosts": ["algo-1"]})


@pytest.mark.parametrize(
    ("named", "environ", "hyperparameters", "program"),
    [
        ("a.py", {"SAGEMAKER_PROGRAM": "b.py"}, {"sagemaker_program": '"c.py"'}, "a.py"),
        (None, {"SAGEMAKER_PROGRAM": "b.py"}, {"sagemaker_program": '"c.py"'}, "b.py"),
        (None, {}, {"sagemaker_program": '"c.py"'}, "c.py"),
        (None, {}, {"sagemaker_program": "c.py"}, "c.py"),
    ],
)
def test_which_program(named, environ, hyperparameters, program):
    """The command line beats the environment, which beats the hyperparameter."""
    assert choose_program(named, hyperparameters, environ) == program


def test_no_program():
    """Without any name the error shows the entrypoint to use."""
    with pytest.raises(SpecError, match=r"python, -m, spotproof\.container"):
        choose_program(None, {}, {})


def command(tmp_path, program, fixed=(), hyperparameters=None):
    return build_command(
        program,
        list(fixed),
        hyperparameters or {},
        base=tmp_path / "ml",
        working_directory=tmp_path / "cwd",
        python="/py",
    )


def test_the_code_directory_comes_first(tmp_path):
    """A program in /opt/ml/code runs there, even if one of that name lies in the working directory."""
    for folder in ("ml/code", "cwd"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train.py").touch()

    found = command(tmp_path, "train.py", ["fit"], {"lr": "1"})

    assert found.directory == tmp_path / "ml/code"
    assert found.argv == ["/py", "train.py", "fit", "--lr", "1"]


def test_a_program_named_by_its_path(tmp_path):
    """A program elsewhere in the image runs in the working directory, one below the code in the code's."""
    for name in ("cwd/x", "ml/code/sub", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "train.py").touch()

    for name, directory in (("elsewhere", "cwd"), ("cwd/x", "cwd"), ("ml/code/sub", "ml/code")):
        program = str(tmp_path / name / "train.py")
        found = command(tmp_path, program)
        assert (found.argv, found.directory) == (["/py", program], tmp_path / directory)


def test_missing_program_says_where_it_was_looked_for(tmp_path):
    """Both places are named."""
    with pytest.raises(SpecError, match=r"ml/code and in .*cwd"):
        command(tmp_path, "train.py")


def test_file_that_is_no_program(tmp_path):
    """A file that can't be run says what would make it one."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd/notes.txt").touch()

    with pytest.raises(SpecError, match="chmod"):
        command(tmp_path, "notes.txt")
