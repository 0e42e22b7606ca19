"""Runs cases and judges what became of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # its modules import each other

PROGRAM = Path(__file__).with_name("hostile_program.py")
TINY = [
    "--data.limit=20",
    "--batch_size=10",
    "--trainer={max_steps: 2}",
    "--model.options={hidden: [4]}",
    "--quiet",
]
SMALL = [
    "--audit.attacks={}",
    "--audit.explained=2",
    "--audit.gallery=1",
    "--audit.k=5",
    "--audit.manipulations.top_k/integrated_gradients.attribution.steps=2",
    "--audit.manipulations.top_k/integrated_gradients.steps=1",
    "--data.limit=6",
    "--quiet",
]


@dataclass
class Hostile:
    """Where cases run."""

    process: subprocess.Popen[str]
    sound: Path
    folder: Path
    count: int = 0
    refused: int = 0

    def faults(self, cases, seconds=10.0):
        """Run cases; return a description of each that does not end as it must."""
        found = []
        for case in cases:
            self.count += 1
            own = self.folder / str(self.count)
            fault = self._fault(case, own, seconds)
            if fault:
                found.append(f"{fault}\n  {_again(case, own)}")
            else:
                shutil.rmtree(own, ignore_errors=True)
        return found

    def ask(self, own, seconds, arguments=(), construct=""):
        asked = {
            "folder": str(own),
            "arguments": list(arguments),
            "construct": construct,
            "seconds": seconds,
        }
        asked |= {stream: f"{own}.{stream}" for stream in ("stdout", "stderr")}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def _fault(self, case, own, seconds):
        _lay(case, self.sound, own)
        ended = self.ask(own, seconds, case.arguments, case.construct)
        self.refused += ended["status"] == 2
        texts = []
        for stream in ("stdout", "stderr"):
            file = Path(f"{own}.{stream}")
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
            file.unlink()
        marked = [path for path in (own, own.parent, self.sound) if (path / "marker").exists()]
        for path in marked:
            (path / "marker").unlink()
        return "code was executed" if marked else judge(ended["status"], *texts)


def judge(status, out, err):
    """Say what is wrong with an end; nothing if it is one of those that are right."""
    errors = [line for line in err.splitlines() if line.startswith("holdfast: error: ")]
    last = err.splitlines()[-1:]
    if status not in (0, 2):
        return f"{status}: {err[-600:]}"
    if "Traceback" in out + err:
        return f"a traceback: {(out + err)[-600:]}"
    if status == 2 and (len(errors) != 1 or last != errors):
        return f"not one line of error: {err[-600:]!r}"
    if status == 0 and errors:
        return f"an error with status 0: {errors}"
    if "fault of Holdfast" in err:
        return errors[0]
    if re.search(r"[^\x20-\x7e\n\x80-\U0010ffff]", err):
        return f"control characters: {err[-600:]!r}"
    return ""


def _lay(case, sound, own):
    own.mkdir()
    for name in case.base:
        shutil.copytree(sound / name, own / name, symlinks=True)
    for name, content in case.files.items():
        file = own / name
        if content is None:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.unlink(missing_ok=True)
            file.symlink_to(content)
        else:
            file.write_bytes(content)


def _again(case, own):
    """Say how to see a fault again; its folder is kept."""
    if case.construct:
        return f"again: {case.construct}"
    return f"again: cd {own}; holdfast {' '.join(map(repr, case.arguments))}"


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """A process that runs cases, and sound folders to make them from."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("forks, and reads its size from /proc")
    root = tmp_path_factory.mktemp("hostile")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(root / "cache")}
    program = [sys.executable, "-P", str(PROGRAM)]
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | offline | {"HF_HOME": str(root / "home"), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout.readline() == "ready\n"
        sound, cases = root / "sound", root / "cases"
        cases.mkdir()
        made = Hostile(process, sound, cases)
        make_sound(made)
        yield made
        process.stdin.close()


def make_sound(hostile):
    """Make what cases are copies of: a run, audited and with ROAR's results; images; tables."""
    from hostile_sources import write_sources

    hostile.sound.mkdir()
    write_sources(hostile.sound)
    for arguments in (
        ["train", "digits/natural", "--out=run", *TINY],
        ["audit", "run", *SMALL],
        ["roar", "run", "--methods=gradient", "--roar.shares=[0.5]", "--out=run/roar", "--quiet"],
    ):
        ended = hostile.ask(hostile.sound, 300, arguments)
        assert ended["status"] == 0, Path(f"{hostile.sound}.stderr").read_text()
    hostile.ask(hostile.sound, 60, construct="write_classes('classes.json')")
