"""A process that has imported torch and Lightning once, and forks the ranks of a training for each line it reads.

Each rank is a process of its own and its kill a real SIGKILL. Reads one JSON request a line, answers with one JSON
line: ``{"exits": [code or -signal, by rank]}``. As soon as one rank was killed, or failed, all others are killed, too,
as a platform does; unless the request says ``mourn``. Where a rank is killed, ``kill`` says: its ``rank``, and the line
of its trace (``at``), or how many writes of files it has begun (``put``), or before or after its part of a commit. A
``fault`` is a machine that fails instead.
"""

import errno
import json
import os
import signal
import sys
import time
import traceback

import ranks_programs
import torch

from spotproof.checkpoint import Checkpointer
from spotproof.checkpoint.ranks_commit import RanksCommitter
from spotproof.storage import LocalStorage


def ignore(name):
    """Nothing happens there."""


def install(kill):
    """Make this process kill itself where *kill* says; return what is to be called with each line of the trace."""
    number = kill.get("signal", signal.SIGKILL)

    def now(*_args, **_options):
        os.kill(os.getpid(), number)

    if "put" in kill:
        write, count = LocalStorage._write, [0]

        def dying(self, key, chunks, place):
            count[0] += 1

            def torn(staged, target):
                if count[0] == kill["put"]:
                    now()
                place(staged, target)

            write(self, key, chunks, torn)

        LocalStorage._write = dying
    if "commit" in kill:
        name, is_after = {"packs": ("_store", True), "manifest": ("_commit_for_all", False)}.get(
            kill["commit"], ("_commit_for_all", True)
        )
        part, times = getattr(RanksCommitter, name), [0]

        def with_kill(*args):
            times[0] += 1
            if times[0] == kill["time"] and not is_after:
                now()
            result = part(*args)
            if times[0] == kill["time"]:
                now()
            return result

        setattr(RanksCommitter, name, with_kill)
    return lambda name: now() if kill.get("at") == name else None


def settle():
    """Wait for each save: what a kill finds on the disk must not depend on the disk's speed."""
    save = Checkpointer.save

    def waiting(self, step, **options):
        return save(self, step, **{**options, "wait": True})

    Checkpointer.save = waiting


def break_machine(fault, place):
    """A disk that is full until a line of the trace says a step, or another attempt that takes over at a line."""
    line, write = [""], LocalStorage._write

    def written(self, key, chunks, place):
        if "full_until" in fault and line[0] != "over":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, key, chunks, place)

    def on_step(name):
        if name == f"step {fault.get('full_until')}":
            line[0] = "over"
        if name == fault.get("usurped_at"):
            usurper = Checkpointer(place)
            usurper._has_looked_for_ranks = True  # a process of another training
            usurper.begin()

    LocalStorage._write = written
    return on_step


def mutate(words):
    """Break the product, to see that the tests find it."""
    module, _, names = words.partition(":")
    target = __import__(module, fromlist=["x"])
    *path, last = names.split(".")
    for part in path:
        target = getattr(target, part)
    setattr(target, last, lambda *args, **options: None)


def run(rank, world, request):
    output = os.open(f"{request['folder']}/output-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    if request.get("mutate"):
        mutate(request["mutate"])
    if request.get("settle", True):
        settle()
    kill = request.get("kill") or {}
    on_step = install(kill) if kill.get("rank") == rank else ignore
    fault = request.get("fault") or {}
    if fault.get("rank") == rank:
        on_step = break_machine(fault, request["places"][rank])
    getattr(ranks_programs, request["program"])(rank, world, request, on_step)


def fork(rank, world, request):
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        code = 1
        try:
            run(rank, world, request)
            code = 0
        except SystemExit as err:
            code = err.code if isinstance(err.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait(pids, *, kills_rest):
    exits = {}
    while len(exits) < len(pids):
        for pid in set(pids) - exits.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                exits[pid] = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                if kills_rest and exits[pid] not in (0, 143):
                    for other in set(pids) - exits.keys():
                        os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    for pid in pids:  # loader workers may outlive a rank that was killed
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return [exits[pid] for pid in pids]


def main():
    for line in sys.stdin:
        request = json.loads(line)
        world = len(request["places"])
        pids = [fork(rank, world, request) for rank in range(world)]
        exits = wait(pids, kills_rest=not request.get("mourn"))
        print(json.dumps({"exits": exits}), flush=True)


if __name__ == "__main__":
    main()
