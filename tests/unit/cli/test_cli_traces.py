"""`spotproof traces`: what capacity is like, for people and for programs."""

import json

import pytest

from spotproof.cli import run


def test_the_recorded_ones_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name all that come along; a job needs half of the most there are."""
    assert run(["traces", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["aws-p3"]["instances"] == 16
    assert found["aws-g4dn-us-east-1c"]["num_up_times"] == 8
    assert 0.6 < found["aws-g4dn-us-east-1c"]["availability"] < 0.7


def test_a_file_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    """With a strip of when it is there: whole, partly, not at all."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"metadata": {"gap_seconds": 60}, "data": [2] * 32 + [1, 2] * 16 + [0] * 32}))
    assert run(["traces", str(path), "--instances", "2"]) == 0
    text = capsys.readouterr().out
    assert "2 of 2" in text
    assert "50.0 %" in text
    row = next(line for line in text.splitlines() if "mine" in line)
    assert "█" * 10 in row
    assert "▒" in row

    assert run(["traces", "recorded:moon"]) == 2
    assert "aws-p3" in capsys.readouterr().err
