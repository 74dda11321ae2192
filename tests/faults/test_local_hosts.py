"""Several hosts of one job: their network, what leads out of it, how they end, and real process groups over them."""

import json
import os
import re
import signal
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from local_rig import open_rig, processes_with, statuses, wait_no_process_with

from spotproof.local.hosts import find_namespace_obstacle, find_network_obstacle

STRAIGHT = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
INTERRUPTED_ONCE = [*STRAIGHT[:3], "Interrupted", *STRAIGHT]
needs_networks = pytest.mark.skipif(find_network_obstacle() is not None, reason="no networks of their own here")

HELPERS = """
    import socket, urllib.request
    NAME = json.loads((BASE / "input/config/resourceconfig.json").read_text())["current_host"]
    OTHER = {"algo-1": "algo-2", "algo-2": "algo-1"}[NAME]
    def connect(host, port):
        for _ in range(3000):
            try:
                return socket.create_connection((host, port), timeout=60)
            except ConnectionRefusedError:
                time.sleep(0.01)
    def meet(port=7777):
        "Tell each other their names over one and the same port of both."
        listener = socket.create_server(("0.0.0.0", port))
        outgoing = connect(OTHER, port)
        incoming, _ = listener.accept()
        outgoing.sendall(NAME.encode())
        return incoming, outgoing
"""


@pytest.fixture
def open_platform(tmp_path, s3_server, monkeypatch):
    """Open a platform whose hosts are in namespaces."""

    def open_it(reclaim="none", **options):
        return open_rig(tmp_path, s3_server, monkeypatch, reclaim=reclaim, hosts="namespace", **options)

    return open_it


@pytest.fixture
def web_server():
    """A server on this machine's loopback, as the internet that a job finds through the proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"{self.path} for {self.headers['Host']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.2", 0), Handler)  # an address that NO_PROXY does not name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def interfaces():
    """Those of container engines come and go with other tests."""
    others = ("podman", "docker", "veth", "cni")
    return sorted(name for name in os.listdir("/sys/class/net") if not name.startswith(others))


def post_reclaim(rig, name, **more):
    body = json.dumps({"TrainingJobName": name, **more}).encode()
    request = urllib.request.Request(
        f"{rig.platform.url}/spotproof/reclaim", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.mark.skipif(find_namespace_obstacle() is not None, reason="no namespaces here")
def test_where_namespaces_can_be_had_networks_can():
    """The tests below are left out where there are none: not silently, because they are broken."""
    assert find_network_obstacle() is None


@needs_networks
def test_hosts_meet_at_their_names_and_reach_s3(open_platform, web_server):
    """Two hosts bind one port each, meet by name over eth0, and reach S3 and the outside; the machine sees nothing."""
    script = (
        HELPERS
        + """
    incoming, _ = meet()
    config = json.loads((BASE / "input/config/resourceconfig.json").read_text())
    facts = {
        "heard": incoming.recv(100).decode(), "peer": incoming.getpeername()[0], "own": socket.gethostbyname(NAME),
        "names": [name for _, name in socket.if_nameindex()], "sys": sorted(os.listdir("/sys/class/net")),
        "interface": config["network_interface_name"], "hostname": socket.gethostname(),
        "peer_name": socket.gethostbyaddr(incoming.getpeername()[0])[0],
        "proxied": urllib.request.urlopen(f"http://127.0.0.2:{os.environ['WEB']}/x?y=1").read().decode(),
    }
    from spotproof.storage._s3 import S3Storage
    S3Storage(os.environ["BUCKET"], environment=os.environ).put(f"direct/{NAME}", [b"x" * 20_000_000])
    facts["big"] = len(S3Storage(os.environ["BUCKET"], environment=os.environ).get(f"direct/{NAME}"))
    begun = time.monotonic()
    try:
        socket.create_connection(("192.0.2.99", 80), timeout=30)
    except OSError as error:
        facts["outside"] = type(error).__name__
    facts["told_at_once"] = time.monotonic() - begun < 20
    print(json.dumps(facts))
"""
    )
    before = interfaces()
    with open_platform() as rig:
        name = rig.create(
            "pair", script, hosts=2, Environment={"WEB": str(web_server), "BUCKET": rig.bucket, "LANG": "C.UTF-8"}
        )
        assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name) + rig.lines(name, 2)
        facts = [json.loads(rig.lines(name, host)[-1]) for host in (1, 2)]
        assert rig.keys("direct") == ["direct/algo-1", "direct/algo-2"]
        wait_no_process_with(rig.mark(name, 0))
    for own, other, fact in ((1, 2, facts[0]), (2, 1, facts[1])):
        assert fact["heard"] == fact["peer_name"] == f"algo-{other}"
        assert (fact["own"], fact["peer"]) == (f"10.0.1.{own}", f"10.0.1.{other}")
        assert fact["names"] == ["lo", "eth0"]
        assert fact["sys"] == ["eth0", "lo"]
        assert fact["interface"] == "eth0"
        assert fact["hostname"] == f"algo-{own}"
        assert fact["proxied"].startswith("/x?y=1 for 127.0.0.2:")
        assert fact["big"] == 20_000_000
        assert fact["outside"] == "OSError"
        assert fact["told_at_once"]
    assert interfaces() == before


@needs_networks
def test_an_isolated_job_reaches_nothing_but_its_peers(open_platform, web_server):
    """EnableNetworkIsolation: no way to this machine or beyond, no credentials; peers and the platform's S3 work."""
    script = (
        HELPERS
        + """
    meet()
    def refused(host, port):
        try:
            socket.create_connection((host, port), timeout=30)
        except OSError:
            return True
    print("ISOLATED", refused("127.0.0.2", int(os.environ["WEB"])), refused("127.0.0.1", int(os.environ["S3"])),
          refused("10.0.0.1", int(os.environ["S3"])), refused("8.8.8.8", 53),
          sorted(n for n in os.environ if "PROXY" in n or n.startswith(("AWS_ENDPOINT", "AWS_SECRET", "AWS_ACCESS"))))
    save(NAME, "through the platform")
    assert (BASE / "input/data/train/x").read_text() == "data"
"""
    )
    with open_platform() as rig:
        rig.s3.put_object(Bucket=rig.bucket, Key="data/x", Body=b"data")
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{rig.bucket}/data/"}}
        name = rig.create(
            "isolated",
            script,
            hosts=2,
            EnableNetworkIsolation=True,
            InputDataConfig=[{"ChannelName": "train", "DataSource": source}],
            Environment={"WEB": str(web_server), "S3": rig.platform.s3_url.rpartition(":")[2]},
        )
        assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
        assert rig.lines(name)[-1] == "ISOLATED True True True True []"
        assert rig.keys("ck") == ["ck/isolated/algo-1", "ck/isolated/algo-2"]

        alone = """
            import socket
            print([name for _, name in socket.if_nameindex()], socket.gethostbyname("algo-1"))
        """
        name = rig.create("alone", alone, EnableNetworkIsolation=True)
        rig.wait(name)
        assert rig.lines(name) == ["['lo', 'eth0'] 10.0.1.1"]


def test_a_host_alone_shares_the_machines_network(open_platform):
    """One host reaches this machine as it is, and the interface that resourceconfig.json names is there."""
    script = """
        import socket
        config = json.loads((BASE / "input/config/resourceconfig.json").read_text())
        assert config["network_interface_name"] in [name for _, name in socket.if_nameindex()]
        socket.create_connection(("127.0.0.1", int(os.environ["S3"])), timeout=60)
        print(socket.gethostbyname("algo-1"), [name for name in os.environ if "PROXY" in name])
    """
    with open_platform() as rig:
        name = rig.create("single", script, Environment={"S3": rig.platform.s3_url.rpartition(":")[2]})
        assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
        assert rig.lines(name) == ["127.0.0.1 []"]


@pytest.mark.parametrize("mode", ["namespace", "plain"])
def test_where_no_network_can_be_had_it_is_said(tmp_path, s3_server, monkeypatch, caplog, mode):
    """Hosts share the machine's network then; a warning says so, and another that a job is not isolated."""
    if mode == "namespace" and find_namespace_obstacle() is not None:
        pytest.skip("no namespaces here")
    monkeypatch.setattr("spotproof.local.platform.find_network_obstacle", lambda: "veth is missing")
    script = """
        import socket
        known = [socket.gethostbyname(name) for name in ("algo-1", "algo-2")] if os.getpid() == 1 else []
        names = [name for name in os.environ if name.startswith(("AWS_ENDPOINT", "AWS_SECRET")) or "PROXY" in name]
        socket.create_connection(("127.0.0.1", int(os.environ["S3"])), timeout=60)
        print(known, names, os.environ.get("MASTER_ADDR"))
    """
    with open_rig(tmp_path, s3_server, monkeypatch, hosts=mode) as rig:
        s3_port = {"S3": rig.platform.s3_url.rpartition(":")[2]}
        name = rig.create("shared", script, hosts=2, EnableNetworkIsolation=True, Environment=s3_port)
        assert rig.wait(name)["TrainingJobStatus"] == "Completed", rig.lines(name)
        known, master = (["127.0.0.1"] * 2, None) if mode == "namespace" else ([], "127.0.0.1")
        assert rig.lines(name)[-1] == f"{known} [] {master}"
    assert "job shared is NOT isolated from the network" in caplog.text
    assert ("veth is missing" in caplog.text) == (mode == "namespace")


LOSE_ONE = (
    HELPERS
    + """
    if (CHECKPOINTS / "once").exists():
        print("AGAIN", sorted(p.name for p in CHECKPOINTS.iterdir()))
        sys.exit(0)
    if NAME == "algo-1":
        save("once", "")
        wait_uploaded("once")
    def leave(*_):
        print("TERM", flush=True)
        save("after-" + NAME, "")
        wait_uploaded("after-" + NAME)
        sys.exit(143)
    signal.signal(signal.SIGTERM, leave)
    incoming, _ = meet()
    incoming.recv(100)
    print("READY", flush=True)
    while incoming.recv(100):
        pass
    print("PEER LOST", flush=True)
    time.sleep(600)
"""
)


@needs_networks
def test_losing_one_host_reclaims_the_job(open_platform):
    """One host of two is killed: the other notices and gets the notice, may save in the grace, and all start again."""
    with open_platform(capacity_wait_seconds=0) as rig:
        name = rig.create("lost", LOSE_ONE, hosts=2)
        rig.wait_line(name, "READY")
        with pytest.raises(urllib.error.HTTPError) as caught:
            post_reclaim(rig, name, Host="algo-3")
        with caught.value as answer:
            assert "algo-1, algo-2" in json.load(answer)["message"]
        assert post_reclaim(rig, name, Host="algo-2", GraceSeconds=60)["Attempt"] == 0
        description = rig.wait(name)
        assert statuses(description) == INTERRUPTED_ONCE, description
        assert "TERM" in rig.lines(name)
        assert "TERM" not in rig.lines(name, 2), "a lost machine gets no notice"
        expected = "AGAIN ['after-algo-1', 'once']"
        assert [rig.lines(name, host)[-1] for host in (1, 2)] == [expected, expected]


@needs_networks
@pytest.mark.parametrize("victim", ["forwarder", "holder", "supervisor"])
def test_a_lost_network_loses_its_hosts(open_platform, tmp_path, victim):
    """If a process behind the network is killed, no host waits forever for its peers, and nothing is left."""
    script = HELPERS + '\n    meet()[0].recv(100)\n    print("READY", flush=True)\n    time.sleep(600)'
    before = interfaces()
    with open_platform() as rig:
        name = rig.create("cut", script, hosts=2)
        rig.wait_line(name, "READY")
        forwarder, holder = sorted(
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if b"_network.py" in read(entry / "cmdline") and rig.mark(name, 0).encode() in read(entry / "environ")
        )
        records = [json.loads(path.read_text()) for path in (tmp_path / "state/processes").glob("*.json")]
        (supervisor,) = [record["pid"] for record in records if record["what"].endswith("/network")]
        os.kill({"forwarder": forwarder, "holder": holder, "supervisor": supervisor}[victim], signal.SIGKILL)
        assert rig.wait(name)["FailureReason"] == "AlgorithmError: , exit code: 137"
        wait_no_process_with(rig.mark(name, 0))
    assert interfaces() == before


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@needs_networks
def test_a_reclaim_leaves_no_network(open_platform, tmp_path):
    """Killed with all its hosts, a network is gone before the next attempt has its own."""
    script = HELPERS + '\n    meet()[0].recv(100)\n    print("READY", flush=True)\n    time.sleep(600)'
    with open_platform(capacity_wait_seconds=0) as rig:
        name = rig.create("again", script, hosts=2)
        rig.wait_line(name, "READY")
        post_reclaim(rig, name)
        while len([line for line in rig.lines(name) if line == "READY"]) < 2:
            assert rig.describe(name)["TrainingJobStatus"] == "InProgress", rig.lines(name)
        assert not processes_with(rig.mark(name, 0))
        assert len(processes_with(rig.mark(name, 1))) > 3
    assert not processes_with(str(tmp_path / "state"))


REDUCE = """
    import torch, torch.distributed as dist
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "LOCAL_RANK" in os.environ:
        assert os.environ["TORCHELASTIC_RUN_ID"] == os.environ["TRAINING_JOB_NAME"]
    dist.init_process_group("gloo")
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    print("SUM", total.item(), "OF", size, flush=True)
    if "FAIL" in os.environ:
        dist.barrier()
        if rank == 1:
            os._exit(41)
        time.sleep(600)
    if "WAIT" in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: (print("TERM", rank, flush=True), os._exit(143)))
        print("READY", flush=True)
        time.sleep(600)
    dist.destroy_process_group()
"""
CONTAINER = ["python", "-m", "spotproof.container"]
PATIENCE_SECONDS = 240
"""Two processes that load torch, on a machine that does other things as well."""
STOPPING = {"MaxRuntimeInSeconds": 1000, "MaxWaitTimeInSeconds": 2000}
WIRINGS = {"plain": [*CONTAINER, "script.py"], "torchrun": [*CONTAINER, "torchrun", "script.py"]}


@needs_networks
def test_a_process_group_over_two_hosts(open_platform):
    """init_process_group over gloo, as it comes from the environment: two hosts add up what each has."""
    with open_platform() as rig:
        name = rig.create("reduce", REDUCE, WIRINGS["plain"], hosts=2, StoppingCondition=STOPPING)
        description = rig.wait(name, PATIENCE_SECONDS)
        assert description["TrainingJobStatus"] == "Completed", rig.lines(name) + rig.lines(name, 2)
        for host in (1, 2):
            assert "SUM 3.0 OF 2" in rig.lines(name, host)


@pytest.mark.slow
@needs_networks
@pytest.mark.parametrize("ranks", [1, 2])
def test_torchruns_agents_find_each_other(open_platform, ranks):
    """torchrun's elastic agents meet on the first host; each host has its ranks."""
    command = [*CONTAINER, "torchrun", *([f"--nproc-per-node={ranks}"] if ranks > 1 else []), "script.py"]
    with open_platform() as rig:
        name = rig.create("elastic", REDUCE, command, hosts=2, StoppingCondition=STOPPING)
        description = rig.wait(name, PATIENCE_SECONDS)
        assert description["TrainingJobStatus"] == "Completed", rig.lines(name) + rig.lines(name, 2)
        expected = "SUM 3.0 OF 2" if ranks == 1 else "SUM 10.0 OF 4"
        for host in (1, 2):
            assert rig.lines(name, host).count(expected) == ranks


@pytest.mark.slow
@needs_networks
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_rank_that_dies_ends_its_host_with_its_code(open_platform, wiring):
    """Rank 1 ends with 41: that is the exit code in FailureReason, under torchrun too."""
    with open_platform() as rig:
        name = rig.create(
            "dies", REDUCE, WIRINGS[wiring], hosts=2, StoppingCondition=STOPPING, Environment={"FAIL": "1"}
        )
        description = rig.wait(name, PATIENCE_SECONDS)
        lines = rig.lines(name) + rig.lines(name, 2)
        assert description["FailureReason"].endswith("exit code: 41"), (description["FailureReason"], lines)


@pytest.mark.slow
@needs_networks
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_stop_reaches_every_rank(open_platform, wiring):
    """SIGTERM to each PID 1 arrives at all ranks."""
    with open_platform() as rig:
        name = rig.create(
            "stopped", REDUCE, WIRINGS[wiring], hosts=2, StoppingCondition=STOPPING, Environment={"WAIT": "1"}
        )
        for host in (1, 2):
            rig.wait_line(name, "READY", host, PATIENCE_SECONDS)
        rig.sagemaker.stop_training_job(TrainingJobName=name)
        assert rig.wait(name, PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"
        told = [line for host in (1, 2) for line in rig.lines(name, host) if line.startswith("TERM")]
        assert sorted(told) == ["TERM 0", "TERM 1"]


@pytest.mark.slow
@pytest.mark.parametrize("wiring", WIRINGS)
def test_plain_processes_find_each_other_too(tmp_path, s3_server, monkeypatch, wiring):
    """Hosts that are plain processes on one machine form a process group at 127.0.0.1."""
    with open_rig(tmp_path, s3_server, monkeypatch, hosts="plain") as rig:
        name = rig.create("plain", REDUCE, WIRINGS[wiring], hosts=2, StoppingCondition=STOPPING)
        description = rig.wait(name, PATIENCE_SECONDS)
        assert description["TrainingJobStatus"] == "Completed", rig.lines(name) + rig.lines(name, 2)
        for host in (1, 2):
            assert "SUM 3.0 OF 2" in rig.lines(name, host)


LIGHTNING = """
    import lightning as L, torch
    from torch.utils.data import DataLoader, TensorDataset
    class Net(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)
        def training_step(self, batch, index):
            return self.layer(batch[0]).square().mean()
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)
    torch.manual_seed(int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0))))
    data = DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=4)
    trainer = L.Trainer(accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", max_epochs=1, logger=False,
                        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    net = Net()
    trainer.fit(net, data)
    print("END", trainer.world_size, trainer.global_step, net.layer.weight.sum().item(), flush=True)
"""


@pytest.mark.slow
@needs_networks
@pytest.mark.parametrize("wiring", WIRINGS)
def test_lightning_trains_over_two_hosts(open_platform, wiring):
    """A stock Trainer with num_nodes=2: both hosts end with the same weights, each having seen half of the data."""
    with open_platform() as rig:
        name = rig.create("lightning", LIGHTNING, WIRINGS[wiring], hosts=2, StoppingCondition=STOPPING)
        description = rig.wait(name, PATIENCE_SECONDS)
        assert description["TrainingJobStatus"] == "Completed", rig.lines(name) + rig.lines(name, 2)
        ends = [re.findall(r"END 2 8 \S+", " ".join(rig.lines(name, host))) for host in (1, 2)]
        assert len(ends[0]) == 1, rig.lines(name)
        assert ends[0] == ends[1], rig.lines(name, 2)


@pytest.mark.slow
def test_ranks_under_torchrun_get_the_whole_grace(open_platform):
    """A rank that takes 35 s to leave after a stop is not killed at torchrun's own 30; one host needs no rendezvous."""
    script = """
        def leave(*_):
            time.sleep(35)
            print("LATE", flush=True)
            os._exit(143)
        signal.signal(signal.SIGTERM, leave)
        print("READY", os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"], flush=True)
        time.sleep(600)
    """
    with open_platform() as rig:
        name = rig.create("patient", script, WIRINGS["torchrun"], StoppingCondition=STOPPING)
        rig.wait_line(name, "READY 0 0 1", 1, PATIENCE_SECONDS)
        rig.sagemaker.stop_training_job(TrainingJobName=name)
        assert rig.wait(name, PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"
        assert "LATE" in rig.lines(name)
