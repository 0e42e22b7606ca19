"""Runs the command in processes forked from one that has imported everything, as `command` asks.

Importing takes longer than most commands do. This is the program of the process that is forked;
`tests/conftest.py` starts it once and gives tests the fixture `command`.
"""

import contextlib
import gc
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path


def serve():
    """Answer each line that asks for a run by a line that says how it ended."""
    asks, answers = ready()
    for line in asks:
        asked = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = run(asked)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # taking everything apart in order would take a second
        status, timed_out = watch(child, asked)
        seconds = time.monotonic() - began
        print(json.dumps([os.waitstatus_to_exitcode(status), timed_out, seconds]), file=answers)


def ready():
    """Import everything and say so; return the streams of questions and of answers.

    They take the places of stdin and stdout, in which what is run must not find or leave anything.
    """
    asks, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    preload()
    print("ready", file=answers)
    return asks, answers


def preload():
    """Import all of Holdfast and what its verbs import late, and compile what is compiled."""
    import torch

    import holdfast

    torch.set_num_threads(1)  # a forked process has none of the threads of the one it comes from
    for package in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not package.name.endswith("__main__"):
            import_module(package.name)
    plots = ("matplotlib.pyplot", "matplotlib.backends.backend_agg")
    for late in ("datasets", "lightning", *plots, "rich.console", "rich.progress"):
        import_module(late)
    holdfast.metrics.kendall_tau(torch.rand(1, 9), torch.rand(1, 9))
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all of memory


def run(asked):
    """Be the command: in its own session, with its own folder, environment and streams."""
    os.setsid()
    for handled in (signal.SIGINT, signal.SIGTERM):
        # What a shell starts in the background ignores SIGINT, and so do its children.
        ordinary = signal.default_int_handler if handled == signal.SIGINT else signal.SIG_DFL
        signal.signal(handled, ordinary)
    for stream, (file, flags) in enumerate(
        [
            (asked["stdin"], os.O_RDONLY),
            (asked["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (asked["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ]
    ):
        opened = os.open(file, flags, 0o600)
        os.dup2(opened, stream)
        os.close(opened)
    os.chdir(asked["cwd"])
    for name, value in asked["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    exec(asked["before"], {})  # what a test does to the process first, such as limits
    sys.argv = ["holdfast", *asked["arguments"]]

    from holdfast.cli import main

    return main(asked["arguments"])


def watch(child, asked):
    """Wait for the end; send the signals that are asked for, and kill at the time limit."""
    began = time.monotonic()
    signals = list(asked["signals"])
    timed_out = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        passed = time.monotonic() - began
        if signals and _due(signals[0][1], passed):
            os.kill(child, signals.pop(0)[0])
        if passed > asked["seconds"]:
            timed_out = True
            _end(child)
        time.sleep(0.002)
    _end(child)  # whatever it has started
    return status, timed_out


def _due(when, passed):
    return Path(when).exists() if isinstance(when, str) else passed >= when


def _end(session):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)


if __name__ == "__main__":
    serve()
    os._exit(0)  # taking all modules apart in order would take seconds
