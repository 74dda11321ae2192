"""Script mode of the SageMaker Python SDK v2: a program is sent along; another one fails; the first is found again."""

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
    Estimator(
        entry_point="train.py",
        hyperparameters={"lr": 0.1, "name": "abc", "flag": True, "l": [1, 2]},
        metric_definitions=[{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        tags=[{"Key": "team", "Value": "vision"}],
        **COMMON,
    ),
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

attached = Estimator.attach(started[0].latest_training_job.name)
frame = attached.training_job_analytics.dataframe()
found = {"model": attached.model_data, "tags": attached.tags, "metrics": frame.to_dict("records")}
print("ATTACHED", json.dumps(found), flush=True)
