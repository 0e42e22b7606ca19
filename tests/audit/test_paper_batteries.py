from dataclasses import replace

import pytest

from holdfast.audit.paper_batteries import eccv2020_figure6, eccv2020_section5, eccv2020_table3
from holdfast.data import ImageData
from holdfast.models import mlp
from holdfast.report import read_run, table
from holdfast.report.alignment import alignment_sections
from holdfast.report.corruptions import corruption_sections
from holdfast.training import load


@pytest.fixture(scope="module")
def data():
    return ImageData("digits", limit=4).load("test")


def test_table_3_of_eccv_2020(data, tmp_path):
    audit = eccv2020_table3(data)
    asked = [attack for attack in audit.attacks.values() if attack.severity == 1]
    assert (len(audit.attacks), len(asked)) == (75, 15)
    names = [attack.name for attack in asked]
    assert "speckle_noise" in names
    assert "frost" not in names
    ends = {name: one for name, one in audit.attacks.items() if one.severity in (1, 5)}
    audit = replace(audit, attacks=ends)
    records = audit(mlp(10, 1, 16, [8]), data, tmp_path / "audit", progress=False)
    run = read_run(tmp_path)
    (section,) = corruption_sections([run], table([run]))
    lines = {line.labels[0]: line.cells[0]["mean"] for line in section.sheets[0].lines}
    assert [name.replace("_", " ") for name in names] == list(lines)[:-1]
    rows = [r for r in records.to_pylist() if r["measure"] == "correct"]
    for name in names:
        values = [r["value"] for r in rows if r["check"].startswith(f"corruption/{name}/")]
        assert len(values) == 2 * 4
        assert lines[name.replace("_", " ")] == pytest.approx(sum(values) / 8)


def test_figure_6_of_eccv_2020(data, tmp_path):
    eccv2020_figure6(data)(mlp(10, 1, 16, [8]), data, tmp_path / "audit", progress=False)
    run = read_run(tmp_path)
    assert len(run.values("alignment/image", "signed_cosine")) == 4
    (section,) = alignment_sections([run], table([run]))
    assert len(section.plots) == 1


def test_section_5_of_eccv_2020(digits_model, tmp_path):
    data = ImageData("digits", limit=12).load("test")
    audit = eccv2020_section5(data)
    ((name, attack),) = audit.manipulations.items()
    assert attack.shuffled
    assert (audit.k, audit.explained, round(255 * attack.eps)) == (100, 1000, 8)
    short = replace(attack, attribution=replace(attack.attribution, steps=3), steps=2)
    audit = replace(audit, manipulations={name: short}, gallery=0, worst=0)
    audit(load(digits_model), data, tmp_path / "audit", progress=False)
    run = read_run(tmp_path)
    kept = sum(run.values(name, "preserved"))
    assert kept > 5
    for measure in ("kendall_tau", "top_k_intersection", "target_kendall_tau"):
        assert len(run.values(name, measure)) == kept
