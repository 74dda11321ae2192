"""The process that SageMaker starts as PID 1: ``python -m spotproof.container [torchrun] train.py``.

In: ``/opt/ml/input/config/*.json`` and the environment. Out: the user's program with its arguments and ``SM_*``
variables, its exit code, and ``/opt/ml/output/failure`` when it failed. Signals reach the program, orphans are reaped.
Nobody imports it; it loads neither torch nor boto3 (``elastic``, which is torchrun, is a
process of its own). Arguments, variables and the failure text are pure functions; ``process`` and ``__main__`` touch
the system.
"""
