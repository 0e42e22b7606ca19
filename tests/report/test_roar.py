import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from holdfast.contracts import InputError
from holdfast.report import AuditedRun, roar_curves, roar_table, table, write_report, write_roar
from holdfast.report.roar import roar_sections
from holdfast.report.tables import to_markdown

ACCURACY = {
    ("none", 0.0): [0.98, 0.96],
    ("ig", 0.2): [0.9, 0.8],
    ("ig", 0.8): [0.3, 0.5],
    ("random", 0.2): [0.95, 0.95],
    ("random", 0.8): [0.7, 0.8],
}


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"attribution": name, "share": share, "repeat": repeat, "accuracy": accuracy}
        for (name, share), values in ACCURACY.items()
        for repeat, accuracy in enumerate(values)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "roar.parquet")
    return tmp_path


def keep(folder, *names):
    rows = pq.ParquetFile(folder / "roar.parquet").read().to_pylist()
    rows = [row for row in rows if row["attribution"] in names]
    pq.write_table(pa.Table.from_pylist(rows), folder / "roar.parquet")


def printed(table):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table)
    return [line.split("  ") for line in captured.get().splitlines()]


def test_curves_are_means_and_bands_reach_from_lowest_to_highest(folder):
    axes = roar_curves(folder).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["ig", "random"]
    np.testing.assert_allclose(lines["ig"].get_xdata(), [0, 20, 80])
    np.testing.assert_allclose(lines["ig"].get_ydata(), [97, 85, 40])
    assert lines["random"].get_linestyle() == "--"
    assert lines["ig"].get_linestyle() == "-"
    band = axes.collections[0].get_paths()[0].vertices
    ends = {x: band[band[:, 0] == x, 1] for x in (0.0, 20.0, 80.0)}
    for x, (low, high) in {0.0: (96, 98), 20.0: (80, 90), 80.0: (30, 50)}.items():
        assert (ends[x].min(), ends[x].max()) == pytest.approx((low, high))


def test_table_has_means_and_deviations(folder):
    head, ig, chance = printed(roar_table(folder))
    assert [cell.strip() for cell in head if cell.strip()] == [
        "pixels removed",
        "0 %",
        "20 %",
        "80 %",
    ]
    values = [cell.strip() for cell in ig if cell.strip()]
    assert values == ["ig", "97.0 ± 1.4", "85.0 ± 7.1", "40.0 ± 14.1"]
    assert [cell.strip() for cell in chance if cell.strip()][2] == "95.0 ± 0.0"


def test_what_is_not_done_yet_is_left_open(folder):
    keep(folder, "none")
    assert len(roar_curves(folder).axes[0].lines) == 0
    assert [cell.strip() for cell in printed(roar_table(folder))[1] if cell.strip()] == [
        "none",
        "97.0 ± 1.4",
    ]


def test_eight_attributions_are_told_apart(tmp_path):
    names = [*"abcdefgh", "random"]
    rows = [{"attribution": n, "share": 0.5, "repeat": 0, "accuracy": 0.5} for n in names]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "roar.parquet")
    figure = roar_curves(tmp_path)
    figure.draw_without_rendering()
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 9


def written(folder, accuracies):
    rows = [
        {"attribution": name, "share": share, "repeat": repeat, "accuracy": accuracy}
        for (name, share), values in accuracies.items()
        for repeat, accuracy in enumerate(values)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "roar.parquet")
    return folder


PGD = {("none", 0.0): [0.9], ("ig", 0.2): [0.7], ("sg", 0.2): [0.6], ("random", 0.2): [0.8]}


class TestSeveralModels:
    def test_share_a_panel_for_each_map(self, folder, tmp_path):
        figure = roar_curves({"art": folder, "pgd": written(tmp_path / "pgd", PGD)})
        panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
        assert list(panels) == ["ig", "sg"]
        lines = {line.get_label(): line for line in panels["ig"].lines}
        assert list(lines) == ["art", "pgd", "art, random", "pgd, random"]
        np.testing.assert_allclose(lines["art"].get_ydata(), [97, 85, 40])
        np.testing.assert_allclose(lines["pgd"].get_ydata(), [90, 70])
        np.testing.assert_allclose(lines["pgd, random"].get_ydata(), [90, 80])
        looks = {label: (line.get_color(), line.get_linestyle()) for label, line in lines.items()}
        assert looks["art"] == (looks["art, random"][0], "-")
        assert len(set(looks.values())) == 4
        # A model looks the same in every panel, and stands in the legend once.
        others = {line.get_label(): line.get_color() for line in panels["sg"].lines}
        assert list(others) == ["pgd", "art, random", "pgd, random"]
        assert others["pgd"] == lines["pgd"].get_color()
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == list(lines)

    def test_share_a_control_that_is_the_same(self, folder, tmp_path):
        same = {key: values for key, values in ACCURACY.items() if key[0] != "ig"}
        figure = roar_curves(
            {"art": folder, "pgd": written(tmp_path / "pgd", {**same, ("ig", 0.2): [0.1, 0.2]})}
        )
        (axes,) = figure.axes
        assert [line.get_label() for line in axes.lines] == ["art", "pgd", "random"]
        np.testing.assert_allclose(axes.lines[2].get_ydata(), [97, 95, 75])

    def test_have_a_line_for_each_map_in_one_table(self, folder, tmp_path):
        models = {"art": folder, "pgd": written(tmp_path / "pgd", PGD)}
        lines = [[c.strip() for c in line if c.strip()] for line in printed(roar_table(models))]
        assert lines == [
            ["pixels removed", "model", "0 %", "20 %", "80 %"],
            ["ig", "art", "97.0 ± 1.4", "85.0 ± 7.1", "40.0 ± 14.1"],
            ["ig", "pgd", "90.0", "70.0", "–"],
            ["sg", "pgd", "90.0", "60.0", "–"],
            ["random", "art", "97.0 ± 1.4", "95.0 ± 0.0", "75.0 ± 7.1"],
            ["random", "pgd", "90.0", "80.0", "–"],
        ]

    def test_files(self, folder, tmp_path):
        models = {"art": folder, "pgd": written(tmp_path / "pgd", PGD)}
        assert write_roar(models, tmp_path / "new" / "both") == tmp_path / "new/both/roar.png"
        found = {path.name for path in (tmp_path / "new" / "both").iterdir()}
        assert found == {"roar.png", "roar.csv", "roar.md", "roar.tex"}
        read = (tmp_path / "new" / "both" / "roar.csv").read_text().splitlines()
        assert read[0].startswith("map,run,removed_0:mean,removed_0:low,removed_0:high,removed_0.2")
        assert read[2] == "ig,pgd,0.9,,,0.7,,,,,"
        write_roar(folder, tmp_path / "one")
        text = (tmp_path / "one" / "roar.md").read_text()
        assert text.splitlines()[0] == "| Map | 0 % | 20 % | 80 % |"

    def test_are_at_least_one(self):
        with pytest.raises(InputError, match="results: expected a folder of ROAR's results"):
            roar_curves({})


def test_all_points_are_seen(folder, tmp_path):
    models = {"art": folder, "pgd": written(tmp_path / "pgd", PGD)}
    for figure in (roar_curves(folder), roar_curves(models)):
        for axes in figure.axes:
            shares = np.concatenate([line.get_xdata() for line in axes.lines])
            assert axes.get_xlim()[0] < shares.min()
            assert axes.get_xlim()[1] > shares.max() == 80


@pytest.mark.parametrize("read", [roar_curves, roar_table])
def test_a_folder_without_results(read, tmp_path):
    with pytest.raises(InputError, match=r"a folder of ROAR's results, with roar\.parquet"):
        read(tmp_path)


@pytest.mark.parametrize("read", [roar_curves, roar_table])
def test_a_file_that_is_something_else(read, tmp_path):
    file = tmp_path / "roar.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"roar\.parquet: expected ROAR's results in Parquet"):
        read(tmp_path)
    pq.write_table(pa.table({"share": [0.5]}), file)
    with pytest.raises(InputError, match=r"roar\.parquet: expected ROAR's results in Parquet"):
        read(tmp_path)


class TestSection:
    def run(self, name, path):
        records = {"index": [0], "label": [1], "check": ["clean"], "measure": ["correct"]}
        return AuditedRun(name, pa.table({**records, "value": [1.0]}), path=path)

    @pytest.fixture
    def runs(self, folder, tmp_path):
        """A run with ROAR, one without, and one that knows no folder."""
        (tmp_path / "art" / "roar").mkdir(parents=True)
        (tmp_path / "pgd").mkdir()
        (folder / "roar.parquet").rename(tmp_path / "art" / "roar" / "roar.parquet")
        found = [self.run(name, tmp_path / name) for name in ("art", "pgd")]
        return [*found, self.run("memory", None)]

    def test_has_a_line_for_each_map_and_run(self, runs, tmp_path):
        (section,) = roar_sections(runs, table(runs))
        assert to_markdown(section.sheets[0]).splitlines()[2:] == [
            "| ig | art | 97.0 | 85.0 | 40.0 |",
            "| random | art | 97.0 | 95.0 | 75.0 |",
        ]
        cell = section.sheets[0].lines[0].cells[2]
        assert cell == pytest.approx({"mean": 0.4, "low": 0.3, "high": 0.5})
        assert [plot.draw().axes[0].get_title(loc="left") for plot in section.plots] == ["art"]
        page = write_report(runs, tmp_path / "report.html").read_text()
        assert "Remove and retrain" in page

    def test_two_runs_of_different_shares_leave_gaps(self, runs, tmp_path):
        rows = [{"attribution": "ig", "share": 0.5, "repeat": 0, "accuracy": 0.5}]
        (tmp_path / "pgd" / "roar").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pgd" / "roar" / "roar.parquet")
        (section,) = roar_sections(runs, table(runs))
        assert to_markdown(section.sheets[0]).splitlines()[2:4] == [
            "| ig | art | 97.0 | 85.0 | – | 40.0 |",
            "| ig | pgd | – | – | 50.0 | – |",
        ]
        (plot,) = section.plots
        lines = {line.get_label(): line for line in plot.draw().axes[0].lines}
        assert list(lines) == ["art", "pgd", "art, random"]
        assert lines["pgd"].get_xdata().tolist() == [50.0]

    def test_is_left_out_before_anything_was_removed(self, runs, tmp_path):
        keep(tmp_path / "art" / "roar", "none")
        assert roar_sections(runs, table(runs)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accuracy": 2.0}, "accuracy from 0 to 1, got 2"),
        ({"accuracy": float("nan")}, "NaN or infinite accuracy"),
        ({"accuracy": "0.5"}, "accuracy: string"),
        ({"accuracy": None}, "accuracy: null"),
        ({"share": -0.2}, "share from 0 to 1"),
        ({"share": 1e9}, "share from 0 to 1"),
        ({"repeat": -1}, "repeat from 0"),
        ({"repeat": 0.5}, "repeat: double"),
        ({"attribution": 7}, "attribution: int64"),
        ({"attribution": "a\nb"}, "names in attribution"),
        ({"attribution": ["ig"]}, "attribution: list"),
    ],
)
def test_records_that_cannot_be(tmp_path, changes, says):
    row = {"attribution": "ig", "share": 0.5, "repeat": 0, "accuracy": 0.5} | changes
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "roar.parquet")
    for read in (roar_table, roar_curves):
        with pytest.raises(InputError, match=r"roar\.parquet: expected") as error:
            read(tmp_path)
        assert says in str(error.value)


def test_records_that_are_none_or_come_twice(folder):
    table = pq.ParquetFile(folder / "roar.parquet").read()
    pq.write_table(table.slice(0, 0), folder / "roar.parquet")
    with pytest.raises(InputError, match="at least one record"):
        roar_table(folder)
    pq.write_table(pa.concat_tables([table, table]), folder / "roar.parquet")
    with pytest.raises(InputError, match="one record for each map, share and repeat"):
        roar_table(folder)
    for content in (b"", b"PAR1", b"nonsense" * 100):
        (folder / "roar.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"roar\.parquet: expected ROAR's results"):
            roar_table(folder)


@pytest.mark.parametrize("name", ["[/b]", "[link=http://x]a[/link]", "$x", r"$\\frac$"])
def test_names_are_taken_as_they_are(tmp_path, name):
    row = {"attribution": name, "share": 0.5, "repeat": 0, "accuracy": 0.5}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "roar.parquet")
    assert printed(roar_table(tmp_path))[1][0].startswith(name)
    figure = roar_curves(tmp_path)
    figure.savefig(tmp_path / "roar.svg")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [name]
