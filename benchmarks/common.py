"""What all benchmarks share: one table a script, each goal beside its figure, the same as JSON."""

import argparse
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch

__all__ = ["Goal", "Result", "add_options", "finish", "percentile95"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One figure, and what it should be."""

    what: str
    measured: float
    limit: float
    unit: str = "x"
    is_least: bool = False
    """Whether the limit is the least it should be, and not the most."""
    digits: int = 2

    @property
    def is_reached(self) -> bool:
        """Whether the figure, as it is printed, is within the limit."""
        shown = round(self.measured, self.digits)
        return shown >= self.limit if self.is_least else shown <= self.limit

    @property
    def cells(self) -> list[str]:
        """Return the row of a table."""
        sign = "≥" if self.is_least else "≤"
        return [
            self.what,
            f"{self.measured:.{self.digits}f} {self.unit}",
            f"{sign} {self.limit:g} {self.unit}",
            "pass" if self.is_reached else "not reached",
        ]


@dataclass
class Result:
    """What one script found out."""

    name: str
    title: str
    settings: str
    columns: list[str]
    rows: list[list[str]]
    goals: list[Goal]
    notes: list[str] = field(default_factory=list)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every script takes."""
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="also write the result there")
    parser.add_argument("--traces", type=Path, help="a folder of recorded traces, for the script that plays them")
    parser.add_argument("--dir", type=Path, default=Path(".spotproof"), help="where to write")


def finish(result: Result, json_file: Path | None) -> None:
    """Print *result*, and write it to *json_file*."""
    print(f"\n{result.title}\n{result.settings}\n")
    print_table(result.columns, result.rows)
    print()
    print_table(["goal", "measured", "wanted", ""], [goal.cells for goal in result.goals])
    for note in result.notes:
        print(note)
    if json_file is not None:
        goals = [{**asdict(goal), "is_reached": goal.is_reached, "cells": goal.cells} for goal in result.goals]
        body = {**asdict(result), "goals": goals, "machine": describe_machine(), "at": _now()}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print *rows*: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for cells in (columns, ["─" * width for width in widths], *rows):
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        print("  ".join([first, *others]))


def describe_machine() -> str:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[2]
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {memory:.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}; mean load of the last 15 minutes {load:.1f}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def percentile95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
