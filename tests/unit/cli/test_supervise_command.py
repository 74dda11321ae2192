"""`spotproof supervise RUN`: a run is gone on with where it began, or nowhere."""

from pathlib import Path

import pytest

from spotproof.cli import run
from spotproof.cli.notes import write_note


@pytest.mark.parametrize(
    ("began_local", "options", "words"),
    [
        (True, [], ["began on the local server", "Add --local."]),
        (False, ["--local"], ["began on AWS", "Leave out --local."]),
    ],
)
def test_a_run_is_not_looked_for_elsewhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    began_local: bool,
    options: list[str],
    words: list[str],
) -> None:
    """Refused before anybody is asked: on AWS it would be another run's place, and might cost money."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    write_note("supervised", "my-run", {"place": "s3://bucket/my-run/supervision", "is_local": began_local})

    code = run(["supervise", "my-run", *options])

    err = capsys.readouterr().err
    assert code == 2
    assert [word for word in words if word not in err] == []
