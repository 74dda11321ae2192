"""torchrun, but it ends with the exit code of the rank that failed: ``python -m spotproof.container.elastic``.

torchrun itself ends with 1 whatever its ranks ended with, and with a traceback when it was asked to leave. Its options
are those of ``torchrun``.
"""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run torchrun with *arguments*; return what this host's process has to end with."""
    try:
        main(list(arguments))
    except ChildFailedError as error:  # told in the log by torchrun
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
