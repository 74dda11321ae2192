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
        text = (ROOT / FILES[short]).read_text()
        assert not function or f"def {function}(" in text


def test_the_page_is_read():
    """The parametrised test above really sees the rows."""
    assert len(list(rows())) > 40
