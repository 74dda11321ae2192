"""`spotproof prices update` writes what AWS answered; `plan` reads it without being told; errors say what to do."""

import json
import os
from pathlib import Path

import pytest
from test_plan_command import JOB

import spotproof.launch
from price_list_sample import LIST
from spotproof.cli import run


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What AWS answers is recorded; the user's folder is empty. Returns the regions that are asked about."""
    regions: list[str] = []

    def fetch(region: str) -> list[str]:
        regions.append(region)
        return LIST

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(spotproof.launch, "fetch_products", fetch)
    monkeypatch.chdir(tmp_path)
    return regions


def test_plan_finds_what_update_wrote(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In the region's own file; the price's date and source are in the plan."""
    assert run(["prices", "update", "--region", "us-west-2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert asked == ["us-west-2"]
    assert told["usd_per_hour"]["ml.g5.xlarge"] == 1.408
    assert told["published"] == "2026-11-20"
    assert told["file"] == str(tmp_path / "state/spotproof/prices/us-west-2.yaml")

    (tmp_path / "job.yaml").write_text(JOB)
    words = ["plan", "job.yaml", "--work", "2h", "--deadline", "9h", "--jobs", "50", "--spot-price", "0.5", "--json"]
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert run(words) == 0
    price = json.loads(capsys.readouterr().out)["on_demand_price"]
    assert price["on_demand_usd_per_hour"] == 1.408
    assert "AWS Price List API, AmazonSageMaker, published 2026-11-20" in price["source"]

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["on_demand_price"] is None


def test_single_types_to_a_place_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Shown, and written where it is wanted."""
    words = ["prices", "update", "--region", "us-west-2", "--instance-type", "ml.g5.xlarge", "--out", "mine/p.yaml"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "1.408" in out
    text = (tmp_path / "mine/p.yaml").read_text()
    assert "ml.g5.xlarge: {on_demand: 1.408}" in text
    assert "ml.p4d" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--region", "us-east-9"], "The Price List has no training instance in us-east-9."),
        (["--region", "us-west-2", "--instance-type", "ml.g9.huge"], "has no ml.g9.huge for training in us-west-2"),
        ([], "No AWS region is configured."),
        (["--region", "../../etc"], "'../../etc' is no AWS region"),
    ],
)
def test_errors_write_nothing(words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What was asked for, what there is, and what to do."""
    assert run(["prices", "update", *words]) in (2, 3)
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.yaml"))
