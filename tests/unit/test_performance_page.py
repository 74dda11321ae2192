"""docs/performance.md is filled from what the benchmarks write."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))
RESULT = {
    "settings": "1 MB",
    "goals": [{"cells": ["stall | to memcpy", "2.00 x", "≤ 1.25 x", "not reached"]}],
    "columns": ["", "median"],
    "rows": [["Spotproof", "3 ms"]],
    "notes": ["said"],
    "at": "2026-01-01",
    "machine": "2 cores",
}


def test_there_is_a_place_for_each_benchmark():
    """Those that `make bench` runs, and no others."""
    page = (ROOT / "docs" / "performance.md").read_text()
    (names,) = re.findall(r"for name in ([a-z_ ]+); do", (ROOT / "Makefile").read_text())
    assert re.findall(r"<!-- (\w+) -->", page) == names.split()
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names.split())
    assert REPORT["filled"](page, dict.fromkeys(names.split(), RESULT)).count("not reached |") == len(names.split())


def test_filling_a_page_again_replaces_what_was_there():
    """And nothing around it."""
    page = "before\n<!-- one -->\nold\n<!-- /one -->\nafter\n"
    once = REPORT["filled"](page, {"one": RESULT})
    assert "old" not in once
    assert once.startswith("before\n<!-- one -->\n1 MB.")
    assert once.endswith("<!-- /one -->\nafter\n")
    assert "| stall / to memcpy | 2.00 x | ≤ 1.25 x | not reached |" in once
    assert REPORT["filled"](once, {"one": RESULT}) == once


def test_a_result_without_a_place_is_refused():
    """Rather than left out."""
    with pytest.raises(ValueError, match="one"):
        REPORT["filled"]("nothing", {"one": RESULT})
