"""What is said to container engines, and what is made of their answers."""

import csv
import itertools
from pathlib import Path

import pytest

from spotproof.engine import Engine, kind_of, parse_engine, parse_image_id
from spotproof.errors import SpecError
from spotproof.local.container_network import choose_subnets, lead_to_gateway
from spotproof.local.containers import list_mounts
from spotproof.local.engine_commands import (
    ContainerPlan,
    Mount,
    NetworkPlace,
    build_container,
    build_network,
    build_search,
)
from spotproof.local.images import EngineImage, command_of
from spotproof.local.limits import HostLimits

DOCKER = Engine(path="/bin/docker", kind="docker", version="28")
PODMAN = Engine(path="/bin/podman", kind="podman", version="4")


def plan(**changes):
    given = {
        "name": "n",
        "owner": "o",
        "what": "job/attempt-0/algo-1",
        "hostname": "algo-1",
        "words": ["sha256:1", "train"],
        "mounts": [Mount("/s", "/opt/ml/model")],
        "environment": {},
        "hosts": {"algo-1": "127.0.0.1"},
        "limits": HostLimits(),
        "shm_bytes": 7,
    }
    return ContainerPlan(**{**given, **changes})


def pairs(words):
    return set(itertools.pairwise(words))


def test_variables_are_not_on_the_command_line():
    """Values pass through the client's environment; those that would steer the client itself do not."""
    secret, own = {"WANDB_API_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "k"}, {"PATH": "/x", "DOCKER_HOST": "tcp://evil"}
    commands, given = build_container(DOCKER, plan(environment={**secret, **own}))
    assert given == secret
    words = commands["create"]
    assert {("--env", "WANDB_API_KEY"), ("--env", "PATH=/x"), ("--env", "DOCKER_HOST=tcp://evil")} <= pairs(words)
    assert not any("secret" in word for line in commands.values() for word in line)


def test_the_machines_network_or_one_of_its_own():
    """A container alone shares the machine's network; in another it has the address that all hosts know."""
    alone = pairs(build_container(DOCKER, plan())[0]["create"])
    assert {("--network", "host"), ("--add-host", "algo-1:127.0.0.1")} <= alone
    hosts = {"algo-1": "10.0.0.5", "algo-2": "10.0.0.6"}
    place = NetworkPlace(network="net", address="10.0.0.5")
    placed = pairs(build_container(DOCKER, plan(place=place, hosts=hosts))[0]["create"])
    assert {("--network", "net"), ("--ip", "10.0.0.5"), ("--add-host", "algo-2:10.0.0.6")} <= placed


def test_limits_leave_no_swap():
    """Memory and swap together are as much as the memory alone."""
    words = build_container(DOCKER, plan(limits=HostLimits(memory_bytes=1 << 30, cpus=0.5)))[0]["create"]
    assert {("--memory", "1073741824"), ("--memory-swap", "1073741824"), ("--cpus", "0.5")} <= pairs(words)
    assert {("--shm-size", "7")} <= pairs(words)


def test_a_removal_waits_for_nobody():
    """Podman is told not to wait for a SIGTERM's effect; Docker would not know the words."""
    assert build_container(PODMAN, plan())[0]["remove"] == [
        *("/bin/podman", "container", "rm", "--force", "--volumes", "--time", "0", "n")
    ]
    assert "--time" not in build_container(DOCKER, plan())[0]["remove"]


def test_paths_may_hold_commas_and_quotes():
    """A mount is a line of CSV, as both engines read it."""
    words = build_container(DOCKER, plan(mounts=[Mount('/a,b"c', "/opt/ml/x", is_read_only=True)]))[0]["create"]
    text = words[words.index("--mount") + 1]
    assert next(csv.reader([text])) == ["type=bind", 'source=/a,b"c', "target=/opt/ml/x", "readonly"]


def test_the_folders_that_are_mounted():
    """What SageMaker fills or takes, and not /opt/ml itself, where an image may have its code; each once."""
    mounts = list_mounts(Path("/h/ml"), ["checkpoints", "output/tensorboard"], ["training"])
    assert [(mount.target, mount.is_read_only) for mount in mounts] == [
        ("/opt/ml/input", False),
        ("/opt/ml/model", False),
        ("/opt/ml/output", False),
        ("/opt/ml/checkpoints", False),
        ("/opt/ml/input/data/training", True),
    ]
    assert mounts[3].source == "/h/ml/checkpoints"


@pytest.mark.parametrize(
    ("entrypoint", "arguments", "words"),
    [
        ([], [], ["sha256:1", "train"]),
        ([], ["a", "b"], ["sha256:1", "a", "b"]),
        (["e"], [], ["--entrypoint=e", "sha256:1"]),
        (["e", "f"], ["a"], ["--entrypoint=e", "sha256:1", "f", "a"]),
        (["python"], ["--privileged"], ["--entrypoint=python", "sha256:1", "--privileged"]),
    ],
)
def test_the_command_is_that_of_docker_run(entrypoint, arguments, words):
    """The default argument is train; what a request gives comes after the image, where it can be no option."""
    assert command_of(EngineImage("sha256:1"), entrypoint, arguments) == words


def test_endpoints_on_loopback_are_at_the_gateway():
    """AWS endpoints of this machine are led to; others, and what is no endpoint, stay."""
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:80",
        "AWS_ENDPOINT_URL_S3": "http://localhost:81/x",
        "AWS_ENDPOINT_URL_STS": "https://sts.example.com",
        "OTHER": "http://127.0.0.1:80",
    }
    assert lead_to_gateway(environment, "10.0.0.1") == {
        **environment,
        "AWS_ENDPOINT_URL": "http://10.0.0.1:80",
        "AWS_ENDPOINT_URL_S3": "http://10.0.0.1:81/x",
        "AWS_ALLOW_HTTP": "true",
    }
    assert lead_to_gateway({"A": "1"}, "10.0.0.1") == {"A": "1"}


def test_networks_try_several_ranges():
    """They are private, do not overlap, and differ from name to name."""
    subnets = list(choose_subnets("one"))
    assert len(set(subnets)) == len(subnets) > 8
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a != b)
    assert all(subnet.is_private for subnet in subnets)
    assert subnets != list(choose_subnets("other"))
    assert subnets == list(choose_subnets("one"))


def test_a_network_that_leads_nowhere():
    """An isolated one is internal; all are found again by their label."""
    network = build_network(DOCKER, name="n", owner="o", what="w", subnet="s", gateway="g", is_internal=True)
    assert "--internal" in network["create"]
    assert ("--label", "spotproof.owner=o") in pairs(network["create"])
    assert build_search("network", "o")[-1] == "label=spotproof.owner=o"
    assert "--all" in build_search("container", "o")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Docker version 28.2.2, build e6534b4", "docker"),
        ("podman version 4.3.1", "podman"),
        ("Emulate Docker CLI using podman.\npodman version 5.0", "podman"),
        ("fine", None),
    ],
)
def test_which_engine_answers(text, kind):
    """On some machines `docker` is Podman."""
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("text", "digest"), [('[{"Id": "sha256:1"}]', "sha256:1"), ("[]", None), ("nonsense", None), ('[{"Id": 3}]', None)]
)
def test_the_digest_of_an_image(text, digest):
    """It is read from what an engine tells of the image; anything else is none."""
    assert parse_image_id(text) == digest


def test_an_unknown_engine_is_refused():
    """The words name those that are known."""
    with pytest.raises(SpecError, match="auto, docker, podman, none"):
        parse_engine("nerdctl")
