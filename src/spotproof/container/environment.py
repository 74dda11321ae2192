"""The variables that a program finds: AWS's ``SM_*`` and ours.

Source: aws/sagemaker-training-toolkit ``environment.py`` (``to_env_vars``); values that are no strings are compact,
sorted JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spotproof.container.arguments import (
    build_arguments,
    decode_hyperparameters,
    framework_parameters,
    user_hyperparameters,
)
from spotproof.container.config import ContainerConfig, place_below
from spotproof.contract import (
    CODE_DIR,
    ENV_CHECKPOINT_DIR,
    ENV_JOB_NAME,
    ENV_MODEL_DIR,
    ENV_OUTPUT_DATA_DIR,
    INPUT_DATA_DIR,
    MODEL_DIR,
    OUTPUT_DATA_DIR,
    OUTPUT_DIR,
)

__all__ = ["MASTER_PORT", "Machine", "build_environment"]

MASTER_PORT = 7777
"""The port on which the first host gathers the others. Source: the toolkit's ``torch_distributed.py``."""

_NOT_IN_TRAINING_ENV = ("hps", "channels", "user_args", "framework_params")
"""They have other names there, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What the host offers."""

    num_cpus: int
    num_gpus: int


def build_environment(
    config: ContainerConfig, base: Path, *, program: str, machine: Machine, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return the program's whole environment; what is *inherited* wins, for the request's ``Environment`` is in it."""
    values = _toolkit_values(config, base, program=program, machine=machine, inherited=inherited)
    ours = {f"SM_{name.upper()}": _text(value) for name, value in values.items()}
    ours[ENV_MODEL_DIR] = str(base / MODEL_DIR)
    ours[ENV_OUTPUT_DATA_DIR] = str(base / OUTPUT_DATA_DIR)
    if config.checkpoint_path is not None:
        ours[ENV_CHECKPOINT_DIR] = place_below(base, config.checkpoint_path)
    ours["PYTHONUNBUFFERED"] = "1"
    ours["CURRENT_HOST"] = config.current_host
    ours["SAGEMAKER_JOB_NAME"] = values["training_env"]["job_name"]
    ours["SAGEMAKER_REGION"] = _region(config, inherited)
    return {**ours, **_cluster(config, machine), **inherited}


def _region(config: ContainerConfig, inherited: Mapping[str, str]) -> str:
    told = decode_hyperparameters(config.hyperparameters).get("sagemaker_region")
    return str(told or inherited.get("AWS_REGION", ""))


def _cluster(config: ContainerConfig, machine: Machine) -> dict[str, str]:
    """Return what torch and Lightning read to find each other: one process a host, the first host leads.

    ``RANK`` is what ``init_process_group("env://")`` needs. With several GPUs Lightning starts a process for each,
    which would inherit it: there it is left out. ``LOCAL_RANK`` always is, for Lightning would take it for a sign that
    these processes exist already.
    """
    hosts = config.hosts
    if len(hosts) < 2:
        return {}
    rank = str(hosts.index(config.current_host))
    return {
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(MASTER_PORT),
        "NODE_RANK": rank,
        "WORLD_SIZE": str(len(hosts)),
        **({"RANK": rank} if machine.num_gpus < 2 else {}),
    }


def _toolkit_values(
    config: ContainerConfig, base: Path, *, program: str, machine: Machine, inherited: Mapping[str, str]
) -> dict[str, Any]:
    decoded = decode_hyperparameters(config.hyperparameters)
    hyperparameters, framework = user_hyperparameters(decoded), framework_parameters(decoded)
    channels = {name: str(base / INPUT_DATA_DIR / name) for name in sorted(config.channels)}
    groups = list(config.resources.get("instance_groups") or [])
    group = str(config.resources.get("current_group_name", "homogeneousCluster"))
    group_hosts = next(
        (entry.get("hosts") for entry in groups if entry.get("instance_group_name") == group), config.hosts
    )
    values: dict[str, Any] = {
        "hosts": config.hosts,
        "current_host": config.current_host,
        "current_instance_type": str(config.resources.get("current_instance_type", "local")),
        "current_instance_group": group,
        "current_instance_group_hosts": group_hosts,
        "instance_groups": [entry.get("instance_group_name") for entry in groups],
        "instance_groups_dict": {entry.get("instance_group_name"): entry for entry in groups},
        "distribution_instance_groups": list(framework.get("sagemaker_distribution_instance_groups") or []),
        "is_hetero": len(groups) > 1,
        "network_interface_name": str(config.resources.get("network_interface_name", "eth0")),
        "resource_config": dict(config.resources),
        "input_data_config": dict(config.channels),
        "channels": list(channels),
        "input_dir": str(base / "input"),
        "input_config_dir": str(base / "input/config"),
        "output_dir": str(base / OUTPUT_DIR),
        "output_data_dir": str(base / OUTPUT_DATA_DIR),
        "output_intermediate_dir": str(base / OUTPUT_DIR / "intermediate"),
        "model_dir": str(base / MODEL_DIR),
        "module_dir": str(decoded.get("sagemaker_submit_directory") or base / CODE_DIR),
        "module_name": PurePosixPath(program).stem,
        "user_entry_point": program,
        "user_args": build_arguments(hyperparameters),
        "hps": hyperparameters,
        "framework_module": inherited.get("SAGEMAKER_TRAINING_MODULE"),
        "framework_params": framework,
        "log_level": decoded.get("sagemaker_container_log_level", 20),
        "num_cpus": machine.num_cpus,
        "num_gpus": machine.num_gpus,
        "num_neurons": 0,
    }
    if "topology" in config.resources:
        values["topology"] = config.resources["topology"]
    values["training_env"] = {
        **{name: value for name, value in values.items() if name not in _NOT_IN_TRAINING_ENV},
        "additional_framework_parameters": framework,
        "hyperparameters": hyperparameters,
        "channel_input_dirs": channels,
        "is_master": config.current_host == config.hosts[0],
        "master_hostname": config.hosts[0],
        "job_name": inherited.get(ENV_JOB_NAME) or str(decoded.get("sagemaker_job_name", "")),
    }
    values.update({f"channel_{name}": path for name, path in channels.items()})
    values.update({f"hp_{name}": value for name, value in hyperparameters.items()})
    return values


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
