"""A managed spot job of the SageMaker Python SDK v3, with code of its own, and from checkpoints that are there."""

import json
import logging
import sys

from sagemaker.core.training.configs import CheckpointConfig, Compute, InputData, SourceCode, StoppingCondition
from sagemaker.train import ModelTrainer

SOURCE_DIR, BUCKET = sys.argv[1:]
logging.basicConfig(level=logging.INFO, format="%(message)s")  # the SDK gives a job's log to its logger

for name in ("first", "second"):
    trainer = ModelTrainer(
        training_image="base-image",
        role="arn:aws:iam::111122223333:role/Training",
        base_job_name=name,
        source_code=SourceCode(source_dir=SOURCE_DIR, entry_script="train.py", requirements="requirements.txt"),
        compute=Compute(instance_type="ml.m5.large", instance_count=1, enable_managed_spot_training=True),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600, max_wait_time_in_seconds=1200),
        checkpoint_config=CheckpointConfig(s3_uri=f"s3://{BUCKET}/checkpoints"),
        hyperparameters={"lr": 0.1, "name": "abc", "flag": True, "l": [1, 2]},
        environment={"FROM_THE_REQUEST": "yes"},
    )
    trainer.train(input_data_config=[InputData(channel_name="train", data_source=f"s3://{BUCKET}/data")])
    job = trainer._latest_training_job
    job.refresh()
    print("DESCRIBED", json.dumps({"name": job.training_job_name, "status": job.training_job_status}), flush=True)
