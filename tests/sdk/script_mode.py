"""Script mode of the SageMaker Python SDK v2: a program with its packages is sent along; another one fails."""

import json
import sys

from sagemaker.estimator import Estimator
from sagemaker.exceptions import UnexpectedStatusException
from sagemaker.pytorch import PyTorch

SOURCE_DIR, BUCKET = sys.argv[1:]
COMMON = {
    "image_uri": "base-image",
    "role": "arn:aws:iam::111122223333:role/service-role/Training",
    "instance_count": 1,
    "instance_type": "ml.m5.large",
    "source_dir": SOURCE_DIR,
}
started = [
    Estimator(entry_point="train.py", hyperparameters={"lr": 0.1, "name": "abc", "flag": True, "l": [1, 2]}, **COMMON),
    PyTorch(entry_point="train.py", hyperparameters={"name": "x y"}, **COMMON),
    Estimator(entry_point="fail.py", **COMMON),
]
for estimator in started:
    estimator.fit(wait=False)
for estimator in started:
    job = estimator.latest_training_job
    try:
        job.wait(logs="None")
    except UnexpectedStatusException as error:
        print("FAILED", error, flush=True)
    print("DESCRIBED", json.dumps(job.describe(), default=str), flush=True)
