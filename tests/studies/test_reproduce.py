"""A study from end to end, on a few digits."""

import re
import shutil
import signal
from importlib import import_module

import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast import plain_yaml
from holdfast.errors import HoldfastError
from holdfast.report import read_run
from holdfast.studies import Reproduction, cells, read_study, reproduce, run_cell, stages


@pytest.fixture(scope="module")
def made(shared_settings, tmp_path_factory):
    """A study that was made once, for all tests."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "mine.yaml").write_text(plain_yaml.dump(shared_settings), encoding="utf-8")
    job = Reproduction(read_study(folder / "mine.yaml"), folder / "out", seeds=2, images=60)
    return reproduce("mine.yaml", job)


def test_values_are_those_of_the_records(made):
    for row in ("natural", "pgd"):
        runs = [read_run(cell.folder) for cell in made.results.job.audits(row)]
        right = [100 * run.values("clean", "correct").mean() for run in runs]
        value = made.results.value(row, "acc.")
        assert value.each == pytest.approx(right)
        assert value.mean == pytest.approx(np.mean(right))
        assert value.spread == pytest.approx(np.std(right, ddof=1))
        assert value.images == 60
        assert value.low <= value.mean <= value.high
        tau = [np.median(run.values("top_k/gradient", "kendall_tau")) for run in runs]
        assert made.results.value(row, "τ").each == pytest.approx(tau)


def test_published_and_measured_stand_side_by_side(made):
    written = (made.folder / "table.md").read_text(encoding="utf-8")
    head, _, natural, _, *_ = written.splitlines()
    assert head == "| Row | acc. ↑: published | measured | τ ↑: published | measured |"
    value = made.results.value("natural", "acc.")
    assert natural.startswith(f"| natural | 97 | {value.mean:.2f} ± {value.spread:.2f} (")
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    for text in ("Two methods on a few digits", "natural", "published", "‡", "97 &gt; 96"):
        assert text in page or text == "‡"
    assert "http" not in re.sub(r"<meta[^>]*>", "", page)
    latex = (made.folder / "table.tex").read_text(encoding="utf-8")
    assert latex.count(r"\\") == 4


@pytest.mark.harness
@pytest.mark.parametrize(
    "sign", ["0/config.yaml", "0/checkpoints/last.ckpt", "2/audit/settings.yaml", "1/config.yaml"]
)
def test_a_study_that_was_killed_ends_as_if_it_had_not_been(sign, settings, written, command):
    settings["rows"]["natural"]["overrides"] |= {"trainer.max_epochs": 30}
    file = written(settings)
    arguments = ("reproduce", file, "--quiet", "--scale", "0.4", "--out")
    whole, killed = file.parent / "whole", file.parent / "killed"
    assert command(*arguments, killed).status == 0
    killed.rename(whole)  # what an audit is bound to says where its model was
    number, _, name = sign.partition("/")
    cell = cells(Reproduction(read_study(file), killed, scale=0.4))[int(number)]
    first = command(*arguments, killed, signals=[(signal.SIGKILL, cell.folder / name)])
    assert first.status == -9, first
    assert not (killed / "mine").exists()
    assert command(*arguments, killed).status == 0
    files = [path for path in whole.rglob("*") if path.is_file() and _is_result(path)]
    assert len(files) == 10
    for path in files:
        again = killed / path.relative_to(whole)
        assert path.read_bytes() == again.read_bytes(), path


def _is_result(path):
    return path.suffix in (".parquet", ".md", ".tex", ".csv") or path.name == "model.safetensors"


def test_the_command_says_all_of_it_and_trains_and_audits_nothing_again(
    settings, written, made, command
):
    out = made.results.job.out
    found = [*out.rglob("*.parquet"), *out.rglob("model.safetensors")]
    assert len(found) == 8
    before = {path: path.stat().st_mtime_ns for path in found}
    given = ["--seeds", "2", "--images", "60", "--out", out, "--quiet"]
    done = command("reproduce", written(settings), *given)
    assert done.status == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert done.stdout.startswith("Two methods on a few digits (nowhere)\nScale 1: at most 60")
    assert "\n\n| Row |" in done.stdout
    assert (made.folder / "table.md").read_text(encoding="utf-8") in done.stdout
    assert "Of 2 published orderings" in done.stdout
    assert f"The page is {made.folder / 'index.html'}." in done.stdout


def test_a_run_that_is_there_is_audited_in_the_studys_folder(made, settings, written, command):
    run = next(iter((made.results.job.out / "runs").glob("*/seed-0")))
    mine = made.results.job.out.parent / "mine"
    if not mine.exists():
        shutil.copytree(run, mine, ignore=shutil.ignore_patterns("audits"))
    before = sorted(path.name for path in mine.iterdir())
    out = made.results.job.out / "other"
    done = command(
        *("reproduce", written(settings), "--rows", "natural", "--run", f"natural={mine}"),
        *("--out", out, "--quiet"),
    )
    assert done.status == 0, done.stderr
    assert sorted(path.name for path in mine.iterdir()) == before
    assert not (out / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "x"], "--scale: expected a number above 0 and at most 1, got 'x'"),
        (["--scale", "1/0"], "--scale: expected a number above 0 and at most 1, got '1/0'"),
        (["--scale", "2"], "--scale: expected a number above 0 and at most 1, got 2.0"),
        (["--run", "natural"], "--run: expected ROW=FOLDER, got 'natural'"),
        (["--run", "natural=no"], "--run: expected the folder of a trained run, got no"),
        (["--data", "digits="], "--data: expected PATH or NAME=PATH, got 'digits='"),
        (["--data", "a", "--data", "b"], "--data says twice where all data is"),
        (["--rows", "art"], "--rows: expected some of natural, pgd, got 'art'"),
        (["--seeds", "0"], "Reproduction.seeds: expected a number above 0, got 0"),
        (["--sedes", "1"], "holdfast reproduce has no option --sedes; did you mean --seeds?"),
    ],
)
def test_wrong_words_end_in_a_line(words, said, settings, written, command, tmp_path):
    done = command("reproduce", written(settings), *words, "--out", tmp_path / "out", cwd=tmp_path)
    assert done.status == 2
    assert done.stderr.startswith(f"holdfast: error: {said}"), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.harness
def test_cells_do_not_depend_on_the_order_in_which_they_run(made, settings, written, tmp_path):
    from holdfast.studies import run_cell, stages, write

    job = Reproduction(read_study(written(settings)), tmp_path / "out", seeds=2, images=60)
    for stage in stages(cells(job)):
        for cell in reversed(stage):
            run_cell(cell)
    other = write("mine.yaml", job)
    assert other.results.values == made.results.values


@pytest.mark.harness
def test_roar_is_a_study(settings, written, tmp_path):
    few = settings["rows"]["natural"]["overrides"] | {"trainer.max_epochs": 1}
    study = {
        "title": "ROAR",
        "source": "nowhere",
        "roar": {"attributions": {"gradient": {"class_path": "Gradient"}}, "shares": [0.25, 0.5]},
        "figure": {"kind": "curves", "over": "columns", "x": "pixels removed"},
        "columns": {
            "25 %": {"check": "roar/gradient", "measure": "0.25", "x": 25},
            "50 %": {"check": "roar/gradient", "measure": "0.5", "x": 50},
        },
        "rows": {"natural": {"recipe": "digits/natural", "overrides": few, "published": [9, 8]}},
    }
    job = Reproduction(read_study(written(study)), tmp_path / "out")
    made = reproduce("roar.yaml", job)
    (cell,) = job.retrainings("natural")
    table = pq.read_table(cell.folder / "roar.parquet").to_pandas()
    (expected,) = table[(table.attribution == "gradient") & (table.share == 0.25)].accuracy
    value = made.results.value("natural", "25 %")
    assert value.mean == pytest.approx(100 * expected)
    assert value.images == 100
    assert value.low < value.mean < value.high
    assert (made.folder / "index.html").read_text(encoding="utf-8").count("<figure") == 1


def test_ray_gets_the_cells_stage_by_stage(tmp_path, monkeypatch):
    given = []

    def share_out(work, items, what, **ray):
        given.append((work, list(items), ray))
        return iter(())  # nothing is done

    monkeypatch.setattr(import_module("holdfast.studies.reproduce"), "share_out", share_out)
    job = Reproduction(read_study("digits/methods"), tmp_path, seeds=2)
    with pytest.raises(HoldfastError):  # there is nothing to make a table of
        reproduce("digits/methods", job, ray={"address": "first:6379", "gpus": None})
    where = {"address": "first:6379", "gpus": None}
    assert given == [(run_cell, stage, where) for stage in stages(cells(job))]
    assert len(given) > 1
