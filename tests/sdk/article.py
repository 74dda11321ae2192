"""The article's call of the SageMaker Python SDK v2, twice: five epochs, then two more from the same checkpoints."""

import json
import sys

import sagemaker
from sagemaker.estimator import Estimator

FOLDER, BUCKET = sys.argv[1:]
HYPERPARAMETERS = {
    "data": "DigitsDataModule",
    "data.batch_size": 32,
    "model.width": 4,
    "optimizer": "Adam",
    "optimizer.lr": 0.001,
    "trainer.limit_train_batches": 8,
    "trainer.limit_val_batches": 2,
    "spot.every_n_steps": 4,
}

inputs = {"training": sagemaker.Session().upload_data(FOLDER, bucket=BUCKET, key_prefix="data")}
for max_epochs in (5, 7):
    estimator = Estimator(
        image_uri="sagemaker-tutorial",
        role="SageMakerTraining",
        instance_count=1,
        instance_type="ml.m5.large",
        use_spot_instances=True,
        max_run=3600,
        max_wait=7200,
        max_retry_attempts=3,
        checkpoint_s3_uri=f"s3://{BUCKET}/checkpoints",
        output_path=f"s3://{BUCKET}/output",
        hyperparameters={**HYPERPARAMETERS, "trainer.max_epochs": max_epochs},
        environment={"OMP_NUM_THREADS": "1"},
    )
    estimator.fit(inputs)
    description = estimator.latest_training_job.describe()
    print("DESCRIBED", json.dumps({"model": estimator.model_data, **description}, default=str), flush=True)
