"""What the command does not import: neither what takes seconds, nor what lies in the folder."""

import os
import signal
import subprocess
import sys

import pytest

SLOW = "torch torchvision lightning datasets pyarrow numpy pandas matplotlib scipy numba rich"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        [],
        ["fly"],
        ["train", "digits/art", "--quick"],
        ["train", "digits/art", "--ouput", "runs/a"],
        ["train", "digits/art", "--trainer.max_step", "3"],
        ["audit", "run", "--batery", "quick"],
        ["audit", "run", "--devices", "two"],
        ["explain", "run", "a.png", "--method=ig"],
        ["roar", "run", "--repeats=2"],
        ["report", "run", "--titel", "x"],
        ["reproduce", "digits/methods", "--sedes", "2"],
        ["report"],
        ["report", "--help"],
        ["train", "--help"],
        ["audit", "--help"],
        ["list", "--help"],
        ["data", "--help"],
        ["data", "import", "--help"],
        ["data", "export"],
        ["demo", "--seed", "x"],
    ],
)
def test_words_are_read_before_anything_slow_is_imported(arguments):
    program = (
        "import sys; from holdfast.cli import main; status = main(sys.argv[1:]); "
        f"print(status, *sorted(set({SLOW!r}.split()) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] in ("0", "2"), done.stderr


EVIL = "open(__import__('os').environ['MARKER'], 'a').write(__file__)\nraise ImportError\n"
NAMES = [
    "typing",
    "argparse",
    "yaml",
    "numpy",
    "torch",
    "tabulate",
    "jsonargparse",
    "rich",
    "datasets",
    "matplotlib",
    "timm",
    "json",
    "transformers",
    "tensorboard",
    "typeshed_client",
    "docstring_parser",
    "IPython",
    "pickle",
    "random",
]


@pytest.fixture
def evil(tmp_path):
    """A folder in which somebody has left modules, with a run in it."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(EVIL)
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        pytest.param(["roar", "run"], marks=pytest.mark.harness),
        # As long as this, and by the same way.
        pytest.param(["report", "run"], marks=pytest.mark.harness),
        pytest.param(["list", "recipes"], marks=pytest.mark.harness),
        pytest.param(["train", "digits/none"], marks=pytest.mark.harness),
    ],
)
def test_modules_beside_a_run_are_not_imported(arguments, evil):
    marker = evil / "marker"
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        cwd=evil,
        env=os.environ | {"MARKER": str(marker)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists(), marker.read_text()


@pytest.mark.parametrize(
    ("arguments", "here"),
    [
        (["train", "mine.yaml"], True),
        (["train", "digits/natural", "--objective={class_path: mine.Square}"], True),
        (["train", "digits/natural", "--model.name", "mine:make"], True),
        (["train", "digits/natural", "--data.path", "pictures.v2"], False),
        (["train", "digits/natural", "--objective.weight", "0.5"], False),
        (["audit", "run", "--architecture", "mine:make"], True),
        (["audit", "mine:make"], True),
        (["audit", "run", "--trust-code"], True),
        (["audit", "run"], False),
        (["audit", "timm:resnet18"], False),
        (["explain", "run", "a.png"], False),
        (["explain", "mine:make", "a.png"], True),
        (["roar", "run"], False),
        (["roar", "run", "--trust-code"], True),
        (["report", "run"], False),
        (["list"], False),
        (["data", "import", "gtsrb", "a", "b"], False),
    ],
)
def test_the_current_folder_is_on_the_path_where_a_user_names_his_code(
    arguments, here, command, tmp_path
):
    (tmp_path / "run").mkdir()
    for file in ("model.safetensors", "config.yaml"):
        (tmp_path / "run" / file).touch()
    places = {"", str(tmp_path)}
    watch = (
        f"import sys; sys.path[:] = [p for p in sys.path if p not in {places}]\n"
        "import holdfast.cli as cli; run = cli._run\n"
        "def watched(given):\n"
        "    try: run(given)\n"
        f"    finally: print('HERE', bool({places} & set(sys.path)))\n"
        "cli._run = watched"
    )
    done = command(*arguments, cwd=tmp_path, before=watch)
    assert done.stdout.splitlines()[-1] == f"HERE {here}", done


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [(signal.SIGTERM, 143, "holdfast: terminated\n"), (signal.SIGINT, 130, "holdfast: stopped\n")],
)
def test_signals_end_the_command_in_one_line(sent, status, says, command, tmp_path):
    wait = (
        "import time, holdfast.cli as cli\n"
        f"cli._overview = lambda: (open({str(tmp_path / 'there')!r}, 'w').close(), time.sleep(60))"
    )
    done = command("--help", before=wait, signals=[(sent, tmp_path / "there")])
    assert (done.status, done.stderr) == (status, says)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_module_that_makes_another_error_of_sigterm_does_not_hide_it(command, tmp_path):
    wait = (
        "import time, holdfast.cli as cli\n"
        "def imports():\n"
        f"    open({str(tmp_path / 'there')!r}, 'w').close()\n"
        "    try: time.sleep(60)\n"
        "    except BaseException as error: raise ImportError('initialization failed') from error\n"
        "cli._overview = imports"
    )
    done = command("--help", before=wait, signals=[(signal.SIGTERM, tmp_path / "there")])
    assert (done.status, done.stderr) == (143, "holdfast: terminated\n")
