"""A process that has imported the heavy libraries once, and forks a run of a program for each line it reads.

Each run is a process of its own and its kill a real SIGKILL. Reads one JSON request a line, answers with one JSON
line: ``{"exit": code or -signal}``. A program is killed where it prints a line that begins with ``at``, or while the
save of a step (``save``) is being written, or once that save is durable (``saved``).
"""

import builtins
import importlib
import json
import os
import runpy
import signal
import sys
import traceback

from spotproof.checkpoint import Checkpointer

plain_print, plain_save = print, Checkpointer.save


def install(kill, mutate):
    """Make this process kill itself where *kill* says, and forget what *mutate* says."""
    number = kill.get("signal", signal.SIGKILL)
    is_there = kill.get("at")

    def printing(*args, **options):
        plain_print(*args, **options)
        if is_there and args and str(args[0]).startswith(is_there):
            os.kill(os.getpid(), number)

    def saving(self, step, **options):
        if step == kill.get("save"):
            plain_save(self, step, **options)
            os.kill(os.getpid(), number)
        # What a kill finds on the disk must not depend on the disk's speed: each save is waited for.
        saved = plain_save(self, step, **{**options, "wait": True})
        if step == kill.get("saved"):
            os.kill(os.getpid(), number)
        return saved

    builtins.print, Checkpointer.save = printing, saving
    if mutate:
        module, name = mutate.rsplit(":", 1)
        target = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, lambda *args, **options: None)


def run(request):
    """Run the program as ``python PROGRAM ARGS`` would, its output in a file."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch

    torch.set_num_threads(1)
    sys.argv = [request["program"], *request["args"]]
    install(request["kill"], request["mutate"])
    runpy.run_path(request["program"], run_name="__main__")


def main():
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(request)
                code = 0
            except SystemExit as err:
                code = err.code if isinstance(err.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        plain_print(json.dumps({"exit": code}), flush=True)


if __name__ == "__main__":
    main()
