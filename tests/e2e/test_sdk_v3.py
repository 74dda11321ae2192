"""The SageMaker Python SDK v3, unmodified, in an environment of its own, against ``spotproof serve``."""

import json

import pytest
from sdk_platform import BUCKET, ROOT, Platform, described

from spotproof.local.hosts import find_namespace_obstacle

PYTHON = ROOT / ".venv-sdkv3/bin/python"
PROGRAM = """
import json, os, pathlib, sys, time

print("ARGV", json.dumps(sys.argv), os.environ["FROM_THE_REQUEST"], flush=True)
kept = pathlib.Path("/opt/ml/checkpoints/steps")
done = int(kept.read_text()) if kept.exists() else 0
for step in range(done, done + 5):
    staged = kept.with_name("steps.sagemaker-ignore")
    staged.write_text(str(step + 1))
    staged.rename(kept)
    print("STEP", step + 1, flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(str(done + 5))
"""

pytestmark = [
    pytest.mark.sdkv3,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(find_namespace_obstacle() is not None, reason="its scripts need /opt/ml itself"),
]


def test_model_trainer(tmp_path):
    """``train()`` runs its own entry point and gives the log to its logger; the second job finds the checkpoints."""
    platform = Platform(tmp_path, PYTHON)
    source, base = tmp_path / "source", tmp_path / "base"
    source.mkdir()
    base.mkdir()
    (source / "train.py").write_text(PROGRAM)
    (source / "requirements.txt").write_text("--no-index\nnumpy\n")

    with platform.serving("--image", f"base-image={base}:python -m spotproof.container"):
        platform.s3().put_object(Bucket=BUCKET, Key="data/x", Body=b"x")
        (text,) = platform.run_clients(("model_trainer.py", str(source), BUCKET))

    first, second = described(text)
    assert first["status"] == second["status"] == "Completed"
    argv = ["train.py", "--lr", "0.1", "--name", "abc", "--flag", "true", "--l", "[1, 2]"]
    for job, steps in ((first, range(1, 6)), (second, range(6, 11))):
        log = platform.logs(job["name"])
        assert f"ARGV {json.dumps(argv)} yes" in log
        assert [line.split()[-1] for line in log.splitlines() if " STEP " in line] == [str(step) for step in steps]
    assert "STEP 10" in text
