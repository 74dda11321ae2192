"""What to type, below each command's help. Pure."""

from collections.abc import Mapping
from typing import Final

__all__ = ["EXAMPLES", "format_examples"]

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        "spotproof init                         # job.yaml for the script here",
        "spotproof rehearse job.yaml            # see it killed, and end the same",
        "spotproof plan job.yaml --work 20h --deadline 36h",
        "spotproof launch job.yaml --dry-run    # then on AWS",
    ),
    "demo": ("spotproof demo", "spotproof demo --reclaim every:20s@grace=10"),
    "schema": ("spotproof schema -o job.schema.json",),
    "init": ("spotproof init", "spotproof init project --program train.py"),
    "rehearse": (
        "spotproof rehearse job.yaml",
        "spotproof rehearse job.yaml --reclaim step:120,step:300@grace=30",
        "spotproof rehearse job.yaml --reclaim trace:recorded:aws-p3@speed=600",
        "spotproof rehearse job.yaml --chaos --seed 7",
        "spotproof rehearse job.yaml --set instance_count=2 --json",
    ),
    "plan": (
        "spotproof plan job.yaml --work 20h --deadline 36h",
        "spotproof plan job.yaml --work 20h --deadline 36h --trace recorded:aws-p3 \\",
        "    --spot-price 0.97 --on-demand-price 3.06 --html plan.html",
        "spotproof plan job.yaml --work 12000steps --measured rehearsal.json",
    ),
    "traces": ("spotproof traces", "spotproof traces us-west-2a.json@polarity=available --instances 4"),
    "serve": (
        'spotproof serve --image digits=src:"python -m spotproof.container train.py"',
        'eval "$(spotproof serve --print-env)"    # for AWS clients in another shell',
    ),
    "reclaim": ("spotproof reclaim JOB", "spotproof reclaim JOB --grace 120 --away 60"),
    "env": ("spotproof env -- aws s3 ls s3://my-bucket/", "spotproof env -- python notebook.py"),
    "faults": (
        "spotproof faults",
        "spotproof faults --s3-faults error:0.05@seed=1",
        "spotproof faults --s3-faults none    # no more",
    ),
    "launch": (
        "spotproof launch job.yaml --dry-run",
        "spotproof launch job.yaml --rehearse --wait",
        "spotproof launch job.yaml --local --set max_epochs=7",
    ),
    "upload": ("spotproof upload job.yaml", "spotproof upload data s3://my-bucket/data/"),
    "supervise": (
        "spotproof supervise job.yaml --deadline 36h --max-cost 50",
        "spotproof supervise RUN    # go on, after this was ended",
    ),
    "list": ("spotproof list --status InProgress --steps", "spotproof list --aws --since '2h ago'"),
    "watch": ("spotproof watch", "spotproof watch JOB --aws --prices prices.yaml"),
    "logs": ("spotproof logs JOB --follow", "spotproof logs JOB --tail 20 --host algo-2"),
    "stop": ("spotproof stop JOB --wait",),
    "report": ("spotproof report JOB --html report.html", "spotproof report JOB --chain --image loss.png"),
    "tensorboard": ("spotproof tensorboard JOB --port 0",),
    "prices update": ("spotproof prices update --region eu-west-1",),
    "checkpoints list": (
        "spotproof checkpoints list checkpoints",
        "spotproof checkpoints list s3://my-bucket/run --aws",
    ),
    "checkpoints verify": ("spotproof checkpoints verify checkpoints",),
    "checkpoints diff": ("spotproof checkpoints diff a b --all", "spotproof checkpoints diff run@1200 run@1400"),
    "checkpoints prune": ("spotproof checkpoints prune checkpoints --keep 2 --dry-run",),
    "checkpoints export": ("spotproof checkpoints export checkpoints@343 step343.ckpt",),
    "checkpoints import": ("spotproof checkpoints import last.ckpt checkpoints",),
    "image build": ("spotproof image build job.yaml",),
    "image push": ("spotproof image push job.yaml",),
}
"""By command; of the program itself, what to begin with."""


def format_examples(command: str) -> str | None:
    """Return the text below the help of *command*; None if it needs none."""
    lines = EXAMPLES.get(command)
    if lines is None:
        return None
    # The mark keeps click from folding the lines into one paragraph.
    return "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in lines)
