import csv
import dataclasses
import io
import statistics

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rich.console

from holdfast.report import table, to_csv, to_latex, to_markdown, to_rich

CHECK = "top_k/integrated_gradients"


def shown(values):
    return f"{100 * statistics.fmean(values):.1f} / {100 * statistics.median(values):.1f}"


def printed(drawn, width=100):
    console = rich.console.Console(width=width, file=io.StringIO(), record=True)
    console.print(drawn)
    return console.export_text()


def make_run_of(run, checks):
    """Give a run more attacks on explanations: its own one, under other names."""
    own = run.records.filter(pc.equal(run.records["check"], CHECK))
    column = own.schema.get_field_index("check")
    more = [own.set_column(column, "check", pa.array([name] * len(own))) for name in checks]
    return dataclasses.replace(run, records=pa.concat_tables([run.records, *more]))


def test_markdown_numbers_by_hand(four_runs):
    header, rule, *lines = to_markdown(table(four_runs)).splitlines()
    assert header.count("|") == rule.count("|") == 8
    assert len(lines) == 4
    for run, line in zip(four_runs, lines, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kept = run.values(CHECK, "preserved")
        assert cells == [
            run.name,
            f"{100 * statistics.fmean(run.values('clean', 'correct')):.1f}",
            f"{100 * statistics.fmean(run.values('pgd', 'correct')):.1f}",
            shown(run.values(CHECK, "top_k_intersection")),
            shown(run.values(CHECK, "kendall_tau")),
            shown(run.values(CHECK, "spearman_rho")),
            f"{int(kept.sum())} of {len(kept)}",
        ]


def test_markdown_escapes_names(make_run):
    text = to_markdown(table([make_run("a|b <i>")]))
    assert "| a\\|b &lt;i> |" in text


def test_csv_holds_what_was_measured_at_full_precision(make_run):
    runs = [make_run("plain"), make_run('with, "comma"', checks=("other/gradient",), seed=1)]
    compared = table(runs)
    plain, comma = csv.DictReader(io.StringIO(to_csv(compared)))
    row = compared.row("plain", CHECK, "kendall_tau")
    for part in ("mean", "low", "high", "median"):
        assert float(plain[f"{CHECK}:kendall_tau:{part}"]) == getattr(row, part)
    assert int(plain[f"{CHECK}:preserved:attacked"]) == row.attacked
    assert comma["run"] == 'with, "comma"'
    assert comma[f"{CHECK}:kendall_tau:mean"] == ""
    assert float(comma["clean:correct:mean"]) == runs[1].values("clean", "correct").mean()


def test_latex_is_booktabs_with_as_many_cells_in_each_row(make_run):
    runs = [make_run("a_b & 5%", checks=(CHECK, "other/gradient")), make_run("art")]
    text = to_latex(table(runs))
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert text.startswith(r"\begin{tabular}{l" + "r" * 10 + "}")
    assert [line.count("&") - line.count(r"\&") for line in body[1:]] == [10, 10, 10]
    assert r"a\_b \& 5\% &" in text
    assert r"\cmidrule(lr){4-7} \cmidrule(lr){8-11}" in text
    assert r"\multicolumn{4}{c}{top\_k/integrated\_gradients}" in text
    assert "-- & -- & -- & --" in text


def test_rich_fits_100_columns(four_runs):
    text = printed(to_rich(table(four_runs)))
    line = next(line for line in text.splitlines() if "ig_sum_norm" in line)
    assert shown(four_runs[2].values(CHECK, "kendall_tau")) in line
    assert max(map(len, text.splitlines())) <= 100


def test_rich_with_several_checks_keeps_numbers_whole(make_run):
    runs = [make_run(f"model_{n}", checks=(CHECK, "mass_center/gradient"), seed=n) for n in (1, 2)]
    text = printed(to_rich(table(runs)))
    for run in runs:
        for check in run.checks[2:]:
            for measure in ("top_k_intersection", "kendall_tau", "spearman_rho"):
                assert shown(run.values(check, measure)) in text


def test_rich_with_many_checks_has_a_line_for_each(four_runs, make_whole_run):
    attacks = {f"pgd_{n}/a": 8 for n in range(6)}
    runs = [make_run_of(run, attacks) for run in four_runs]
    lines = [line.split() for line in printed(to_rich(table(runs))).splitlines()]
    assert max(map(len, printed(to_rich(table(runs))).splitlines())) <= 100
    for number in range(6):
        line = next(line for line in lines if line[:4] == ["pgd", str(number), "on", "a"])
        shown = " ".join(line[4:]).split(" / ")
        assert len(shown) == 1 + len(runs)
    clean = next(line for line in lines if line[:1] == ["clean"])
    expected = [f"{100 * run.values('clean', 'correct').mean():.1f}" for run in runs]
    assert clean[1:] == expected
    whole = printed(to_rich(table([make_whole_run("whole")])))
    assert "corruptions" in whole
    assert "fog" not in whole  # corruptions have one column together
    assert "pgd 4" not in whole  # and so have the points of a curve


def test_rich_takes_names_as_they_are(make_run):
    run = make_run("[red]art")
    assert "[red]art" in printed(to_rich(table([run])))


@pytest.mark.parametrize("write", [to_markdown, to_csv, to_latex, lambda t: printed(to_rich(t))])
def test_nan_is_never_printed(make_run, write):
    runs = [
        make_run("whole"),
        make_run("one", images=1, gallery=(0,)),
        make_run("other", checks=("a/b",)),
    ]
    text = write(table(runs)).lower()
    assert "nan" not in text
    assert "none" not in text


HOSTILE = '=HYPERLINK("http://x") | [a](javascript:alert(1)) <script> `x` *b* $\\input{x}$ ^^5c'


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "＝1+1", HOSTILE])
def test_csv_holds_no_formula(make_run, name):
    run = dataclasses.replace(make_run(checks=("=cmd|' /C calc'!A0",)), name=name)
    rows = list(csv.reader(io.StringIO(to_csv(table([run])))))
    assert rows[1][0] == f"'{name}"
    cells = [cell for row in rows for cell in row if cell]
    texts = [cell for cell in cells if cell[0] in "=+-@\t\r＝"]
    assert all(float(text) < 0 for text in texts)  # which a spreadsheet takes for numbers
    assert not any(cell.startswith("=cmd") for cell in rows[0])


def test_negative_numbers_of_csv_stay_numbers(make_run):
    run = make_run(tau=-0.9)
    rows = list(csv.DictReader(io.StringIO(to_csv(table([run])))))
    values = [value for key, value in rows[0].items() if "kendall_tau:mean" in key]
    assert [float(value) < 0 for value in values] == [True]


def test_markdown_and_latex_take_hostile_names_as_text(make_run):
    run = dataclasses.replace(make_run(), name=HOSTILE)
    markdown = to_markdown(table([run]))
    assert "<script" not in markdown
    assert "](" not in markdown.replace("\\](", "")
    assert "\\`x\\`" in markdown
    latex = to_latex(table([run]))
    assert "\\input" not in latex
    assert r"\$\textbackslash{}input\{x\}\$" in latex
    assert r"\textasciicircum{}\textasciicircum{}5c" in latex
