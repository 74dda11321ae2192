"""One host of an attempt: its directory, its world, its process tree.

A host is a directory below the state directory, wiped with its attempt. In a namespace its ``ml`` folder is /opt/ml
itself, /tmp and /dev/shm are its own, its name is algo-N, and it may have a network of its own; as a plain process it
gets the paths through environment variables. A container of the engine has its folders at /opt/ml as well, and
everything else of its image.
"""

import json
import logging
import os
import shutil
import site
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from spotproof import contract
from spotproof.errors import EngineError
from spotproof.local.containers import Container
from spotproof.local.limits import Cgroup
from spotproof.local.network import Network, plan_network
from spotproof.local.processes import Stage, Supervised
from spotproof.local.registry import Registry

__all__ = ["Host", "HostMode", "HostPlan", "find_namespace_obstacle", "find_network_obstacle"]

HostMode = Literal["namespace", "plain", "container"]

_NOT_COPIED: Final = (".git", "__pycache__", ".venv", ".spotproof", ".mypy_cache", ".pytest_cache", ".ruff_cache")
_INHERITED: Final = (
    *("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
"""What of the server's environment a job sees: what the machine needs, nothing of the user's shell."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPlan:
    """What one host is to be."""

    mode: HostMode
    index: int
    num_hosts: int
    directory: Path
    """Made by :meth:`Host.build`; nothing of an earlier attempt is in it."""
    code_folder: Path | None
    """None if the code is in an image."""
    command: Sequence[str]
    environment: Mapping[str, str]
    """What the platform and the request set; it wins over what the host sets itself."""
    config_files: Mapping[str, Any]
    """JSON documents by path below ml."""
    channels: Sequence[str]
    read_only_channels: Sequence[str] = ()
    """Those of *channels* that the job can't write to; as a plain process it can."""
    synced_dirs: Sequence[str] = ()
    """What is mirrored to S3, below ml."""
    checkpoint_dir: str | None
    """Below ml; None if the job has none."""
    network: Network | None = None
    """Open by the time that :meth:`Host.open` is called; None for the machine's own."""
    cgroups: Sequence[Cgroup] = ()
    """Made with the host, and gone with it."""
    container: Container | None = None
    """Given if the mode is ``container``; then it has network and limits."""

    @property
    def name(self) -> str:
        return f"algo-{self.index + 1}"

    @property
    def ml_dir(self) -> Path:
        return self.directory / "ml"

    @property
    def base(self) -> Path:
        """The ml directory as the job sees it."""
        return self.ml_dir if self.mode == "plain" else Path(contract.ML_ROOT)


class Host:
    """One host, from its empty directory to its end."""

    def __init__(
        self,
        plan: HostPlan,
        what: str,
        registry: Registry,
        *,
        on_output: Callable[[bytes], object],
        on_exit: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self._tree = Supervised(what, plan.command, registry, on_output=on_output, on_exit=on_exit)
        self.start, self.terminate, self.kill = self._tree.start, self._tree.terminate, self._tree.kill
        self.is_gone = self._tree.is_gone
        self.is_open = False

    def build(self) -> None:
        """Make the directory with everything in it but what comes from S3."""
        ml = self.plan.ml_dir
        always = (contract.MODEL_DIR, contract.OUTPUT_DATA_DIR, contract.INPUT_DATA_DIR)
        for name in (*always, *self.plan.synced_dirs):
            (ml / name).mkdir(parents=True, exist_ok=True)
        for channel in self.plan.channels:
            (ml / contract.INPUT_DATA_DIR / channel).mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "home", "scratch", "spare"):
            (self.plan.directory / name).mkdir(exist_ok=True)
        (self.plan.directory / "hosts").write_text(self._hosts_file())
        for path, document in self.plan.config_files.items():
            target = ml / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(document, indent=1))
        if self.plan.code_folder is not None:
            shutil.copytree(self.plan.code_folder, ml / contract.CODE_DIR, ignore=self._not_copied, symlinks=True)

    def _not_copied(self, folder: str, names: list[str]) -> set[str]:
        """Leave out what no image holds, and the state directory, which may lie inside the folder."""
        own = {name for name in names if self.plan.directory.is_relative_to(Path(folder, name))}
        return own | set(names).intersection(_NOT_COPIED) | {n for n in names if not _is_copied(Path(folder, n))}

    def open(self) -> None:
        """Set the stage; the command waits for :meth:`start`.

        Raises:
            EngineError: It could not be set.
        """
        self.is_open = True
        self._tree.open(self._stage())

    def read_failure(self) -> str:
        """Return what the job wrote to output/failure; empty if nothing."""
        path = self.plan.ml_dir / contract.FAILURE_FILE
        if path.parent.is_symlink():  # it could lead anywhere on this machine
            return ""
        try:
            # The job may have put anything there: a link, a pipe, a directory, a gigabyte.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                is_file = stat.S_ISREG(os.fstat(fd).st_mode)
                text = os.read(fd, 4 * contract.FAILURE_REASON_MAX_CHARS) if is_file else b""
            finally:
                os.close(fd)
        except OSError:
            return ""
        return text.decode(errors="replace")

    def _hosts_file(self) -> str:
        network = self.plan.network
        shared = ["127.0.0.1"] * self.plan.num_hosts
        addresses = shared if network is None else network.plan.addresses
        lines = [f"{address} algo-{index + 1}" for index, address in enumerate(addresses)]
        return "\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""])

    def _stage(self) -> Stage:
        plan = self.plan
        if plan.container is not None:
            return plan.container.build_stage(
                index=plan.index,
                words=plan.command,
                ml_dir=plan.ml_dir,
                synced_dirs=plan.synced_dirs,
                read_only_channels=plan.read_only_channels,
                environment=plan.environment,
            )
        settings = {
            "ml_dir": str(plan.ml_dir),
            "tmp_dir": str(plan.directory / "tmp"),
            "scratch_dir": str(plan.directory / "scratch"),
            "spare_dir": str(plan.directory / "spare"),
            "read_only": [str(plan.ml_dir / contract.INPUT_DATA_DIR / name) for name in plan.read_only_channels],
            "hosts_file": str(plan.directory / "hosts"),
            "hostname": plan.name,
            "keep_paths": _python_paths_below("/tmp", tuple(sys.path), os.environ.get("PYTHONPATH", "")),
            "network": plan.network.host_settings(plan.index) if plan.network is not None else None,
            "cgroups": [asdict(cgroup) for cgroup in plan.cgroups],
            "remove_at_end": [cgroup.folder for cgroup in plan.cgroups],
        }
        mode: Literal["namespace", "plain"] = "namespace" if plan.mode == "namespace" else "plain"
        return Stage(mode=mode, cwd=plan.base / contract.CODE_DIR, environment=self._environment(), settings=settings)

    def _environment(self) -> dict[str, str]:
        plan = self.plan
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": "/tmp" if plan.mode == "namespace" else str(plan.directory / "home"),
            "TMPDIR": "/tmp" if plan.mode == "namespace" else str(plan.directory / "tmp"),
            "PYTHONUNBUFFERED": "1",  # as AWS's own training images set it: a line counts when it is printed
            "PYTHONUSERBASE": site.getuserbase(),
            # Several hosts, loader workers and the platform share these cores. Threads that spin while they wait for
            # each other made a step of 46 ms one of 383 ms.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        if os.environ.get("PYTHONPATH"):
            environment["PYTHONPATH"] = os.pathsep.join(
                os.path.abspath(path) for path in os.environ["PYTHONPATH"].split(os.pathsep) if path
            )
        if plan.mode == "plain":
            environment |= self._directory_variables()
        return {**environment, **plan.environment}

    def _directory_variables(self) -> dict[str, str]:
        """What a job needs that can't have the literal /opt/ml. The names are those of AWS's training toolkit."""
        plan, base = self.plan, self.plan.base
        hosts = [f"algo-{number + 1}" for number in range(plan.num_hosts)]
        checkpoint = {contract.ENV_CHECKPOINT_DIR: str(base / plan.checkpoint_dir)} if plan.checkpoint_dir else {}
        return {
            contract.ENV_BASE_DIR: str(base),
            contract.ENV_MODEL_DIR: str(base / contract.MODEL_DIR),
            contract.ENV_OUTPUT_DATA_DIR: str(base / contract.OUTPUT_DATA_DIR),
            **checkpoint,
            "SM_OUTPUT_DIR": str(base / contract.OUTPUT_DIR),
            "SM_INPUT_DIR": str(base / "input"),
            "SM_INPUT_CONFIG_DIR": str(base / "input/config"),
            "SM_CHANNELS": json.dumps(sorted(plan.channels)),
            "SM_HOSTS": json.dumps(sorted(hosts)),
            "SM_CURRENT_HOST": plan.name,
            **{f"SM_CHANNEL_{name.upper()}": str(base / contract.INPUT_DATA_DIR / name) for name in plan.channels},
        }


@lru_cache(maxsize=1)
def find_namespace_obstacle() -> str | None:
    """Return why hosts can't have namespaces here; None if they can. Found out by making one."""
    if sys.platform != "linux":
        return f"{sys.platform} has none"
    # On most machines one look answers both questions.
    return None if find_network_obstacle() is None else _probe(has_network=False)


@lru_cache(maxsize=1)
def find_network_obstacle() -> str | None:
    """Return why hosts can't have a network of their own here; None if they can. Found out by making one."""
    return _probe(has_network=True) if sys.platform == "linux" else f"{sys.platform} has no namespaces"


def _probe(*, has_network: bool) -> str | None:
    """Return why a host can't be made; None if all went well."""
    with tempfile.TemporaryDirectory(prefix="spotproof-probe-") as name:
        folder = Path(name)
        registry = Registry(folder / "processes", "probe")
        plan = HostPlan(
            mode="namespace",
            index=0,
            num_hosts=1,
            directory=folder / "host",
            code_folder=folder,
            command=["/bin/sh", "-c", "test -d /opt/ml/model"],
            environment={},
            config_files={},
            channels=[],
            checkpoint_dir=None,
        )
        network = None
        if has_network:
            network = Network("probe network", plan_network(1, {}, is_isolated=True), registry, on_lost=lambda: None)
            plan = replace(plan, network=network)
        codes: list[int] = []
        host = Host(plan, "probe", registry, on_output=len, on_exit=codes.append)
        try:
            if network is not None:
                network.open()
            host.build()
            host.open()
        except EngineError as error:
            return error.why.rstrip(".")
        else:
            host.start()
            host.is_gone.wait(30)
            return None if codes == [0] else "/opt/ml could not be put in place"
        finally:
            host.kill()
            if network is not None:
                network.kill()
                network.is_gone.wait(30)
            registry.close()


def _is_copied(path: Path) -> bool:
    return path.is_symlink() or path.is_dir() or path.is_file()


@lru_cache(maxsize=1)
def _python_paths_below(root: str, sys_path: Sequence[str], python_path: str) -> list[str]:
    """Return where this Python and its packages live, as far as that is below *root*; outer paths only, outer first."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve()), *sys_path]
    places += [str(Path(__file__).parents[2]), sysconfig.get_paths()["stdlib"], site.getuserbase()]
    places += [os.path.abspath(path) for path in python_path.split(os.pathsep) if path]
    found: list[str] = []
    for place in sorted({os.path.abspath(place) for place in places if place}, key=len):
        inside = place.startswith(root + "/") and os.path.exists(place)
        if inside and not any(place == outer or place.startswith(outer + "/") for outer in found):
            found.append(place)
    return found
