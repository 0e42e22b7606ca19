"""Runs one hostile case after the other in processes forked from one that has imported everything.

A line of JSON on stdin is a case, a line on stdout what became of it. A forked process runs a few
cases and ends; one that hangs is killed, and one that dies is noticed.
"""

import contextlib
import dataclasses
import faulthandler
import importlib
import inspect
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nursery import ready

CASES_A_PROCESS = 20
MEMORY = 6 << 30


def serve():
    """Answer each case, in the order in which they come."""
    asks, answers = ready()
    worker = None
    for line in asks:
        if worker is None or worker.done >= CASES_A_PROCESS:
            if worker is not None:
                worker.end()
            worker = Worker()
        answer = worker.ask(line, json.loads(line)["seconds"])
        if not worker.alive:
            worker = None
        print(json.dumps(answer), file=answers)
    if worker is not None:
        worker.end()


class Worker:
    """A forked process that runs cases."""

    def __init__(self):
        here, there = os.pipe(), os.pipe()
        self.done, self.alive = 0, True
        self.process = os.fork()
        if self.process == 0:
            os.close(here[1])
            os.close(there[0])
            try:
                work(os.fdopen(here[0]), os.fdopen(there[1], "w", buffering=1))
            finally:
                os._exit(0)
        os.close(here[0])
        os.close(there[1])
        self.asks, self.answers = os.fdopen(here[1], "w", buffering=1), os.fdopen(there[0])

    def ask(self, line, seconds):
        self.done += 1
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self.asks.write(line)
            self.asks.flush()
        ready, _, _ = select.select([self.answers], [], [], seconds)
        answer = self.answers.readline() if ready else ""
        if answer:
            return json.loads(answer) | {"seconds": time.monotonic() - began}
        if not ready:
            os.kill(self.process, signal.SIGABRT)  # faulthandler says where it hangs
            time.sleep(0.2)
        status = self.end(kill=not ready)
        how = f"died with status {os.waitstatus_to_exitcode(status)}" if ready else "hangs"
        return {"status": how, "seconds": time.monotonic() - began}

    def end(self, kill=False):
        self.alive = False
        for stream in (self.asks, self.answers):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        if kill:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
        return os.waitpid(self.process, 0)[1]


def work(asks, answers):
    """Run cases, each with streams of its own; be killed rather than take all memory."""
    os.setsid()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in asks:
        asked = json.loads(line)
        os.chdir(asked["folder"])
        for stream, file in ((1, asked["stdout"]), (2, asked["stderr"])):
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, stream)
            os.close(opened)
        faulthandler.enable()
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")
        status = construct(asked["construct"]) if asked["construct"] else command(asked)
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps({"status": status}), file=answers)


def command(asked):
    """Run the command."""
    from holdfast.cli import main

    sys.argv = ["holdfast", *asked["arguments"]]
    return main([os.fsdecode(os.fsencode(a)) for a in asked["arguments"]])


def construct(expression):
    """Make a part in Python: it is made, or refused with an error of ours."""
    import numpy
    import torch

    from holdfast.errors import HoldfastError

    names = {"np": numpy, "torch": torch, "write_classes": write_classes, **packages()}
    try:
        eval(expression, names)
    except HoldfastError as error:
        if not str(error).isprintable():
            print("holdfast: error: not printable", file=sys.stderr)
        print(f"holdfast: error: {str(error)!a}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def packages():
    names = (
        *("adversarial", "attributions", "audit", "data", "manipulation", "models", "objectives"),
        "training",
    )
    return {name: importlib.import_module(f"holdfast.{name}") for name in names}


def write_classes(file):
    """Write down the public classes of parameters, and which of these have to be given."""
    found = []
    for package, module in packages().items():
        for name in module.__all__:
            kind = getattr(module, name)
            result = name.endswith("Outcome")  # made by methods, not by users
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not result:
                parameters = inspect.signature(kind).parameters.values()
                named = [(p.name, p.default is inspect.Parameter.empty) for p in parameters]
                if named:
                    found.append((f"{package}.{name}", named))
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    serve()
    os._exit(0)  # taking all modules apart in order would take seconds
