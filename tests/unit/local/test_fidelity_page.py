"""docs/fidelity.md keeps its promise: a row that says "same" has a test, and every test it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = {
    "jobs": "tests/faults/test_local_jobs.py",
    "server": "tests/faults/test_local_server.py",
    "sync": "tests/faults/test_local_sync.py",
    "state": "tests/property/test_job_state.py",
    "pieces": "tests/unit/local/test_local_pieces.py",
    "literals": "tests/contract/test_literals.py",
    "schedule": "tests/unit/test_schedule.py",
    "endings": "tests/unit/local/test_job_endings.py",
    "faults": "tests/faults/test_sync_agent_faults.py",
    "hosts": "tests/faults/test_local_hosts.py",
    "inputs": "tests/faults/test_local_inputs.py",
    "curves": "tests/faults/test_tensorboard_output.py",
    "limits": "tests/faults/test_local_limits.py",
    "network": "tests/unit/local/test_network.py",
    "groups": "tests/unit/local/test_limits.py",
    "engine": "tests/faults/test_local_engine.py",
    "engine-words": "tests/unit/local/test_engine_commands.py",
    "launcher": "tests/unit/container/test_launcher.py",
    "restart": "tests/faults/test_local_restart.py",
    "capacity": "tests/faults/test_local_capacity.py",
    "many": "tests/faults/test_local_many_jobs.py",
    "store": "tests/unit/local/test_job_store.py",
    "clients": "tests/faults/test_local_clients.py",
    "encryption": "tests/faults/test_local_encryption.py",
    "sdkv2": "tests/e2e/test_sdk_v2.py",
    "script-mode": "tests/faults/test_script_mode.py",
    "logs": "tests/unit/local/test_logs_api.py",
    "listing": "tests/unit/local/test_listing.py",
    "routing": "tests/unit/local/test_routing.py",
    "search": "tests/unit/local/test_search.py",
    "metrics": "tests/unit/local/test_metrics_api.py",
    "environment": "tests/unit/container/test_container_environment.py",
}


def rows():
    for line in (ROOT / "docs/fidelity.md").read_text().splitlines():
        if line.startswith("|") and not line.startswith(("| behaviour", "|---")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_a_row_has_the_test_it_needs(row):
    """A row says same, approximate or not modelled; a "same" names a test; every named test exists."""
    says, tests = row[1:-2], row[-1]
    for cell in says:
        assert re.match(r"(same|approximate|not modelled|as ns)\b", cell), cell
    names = re.findall(r"`([^`]+)`", tests)
    if any(cell.startswith("same") for cell in says):
        assert names
    for name in names:
        short, _, function = name.partition("::")
        text = (ROOT / FILES.get(short, short)).read_text()
        assert not function or f"def {function}(" in text


def test_the_page_is_read():
    """The parametrised test above really sees the rows."""
    assert len(list(rows())) > 40
