"""What the fault tests share: processes that fork trainings, slow to start."""

import pytest
from outcomes import Zygote
from ranks_rig import Ranks


@pytest.fixture(scope="session")
def zygote():
    """A process that forks trainings."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="module")
def ranks():
    """A process that forks ranks."""
    process = Ranks()
    yield process
    process.close()


@pytest.fixture(scope="module")
def undisturbed(ranks, tmp_path_factory):
    """Give the folder of an undisturbed run of two ranks; made once for each kind."""
    runs = {}

    def run(program, **request):
        key = program, *sorted(request.items())
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("undisturbed")
            assert ranks.run(program, runs[key], **request) == [0, 0]
        return runs[key]

    return run
