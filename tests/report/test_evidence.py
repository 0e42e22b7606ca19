import csv
import io
import re

import pyarrow as pa
import pytest
import rich.console

from holdfast.report import (
    AuditedRun,
    box_plot,
    summarize,
    table,
    to_csv,
    to_latex,
    to_markdown,
    to_rich,
    write_report,
)
from holdfast.report.contents import contents
from holdfast.report.curves import family_curves
from holdfast.report.evidence import struck_out
from holdfast.report.glance import glance
from holdfast.report.headline import headline
from holdfast.report.trust import doubt_count

TOP = "top_k/gradient"


def made(name="art", *, images=20, settings=None, fitness=None, **checks):
    """Build a run: for each check, its measures; a number stands for that of every image."""
    rows = []
    for check, measures in {"clean": {"correct": 1.0}, **checks}.items():
        for measure, values in measures.items():
            values = values if isinstance(values, list) else [values] * images
            known = [(index, value) for index, value in enumerate(values) if value is not None]
            rows += [(index, 3, check.replace("__", "/"), measure, value) for index, value in known]
    columns = zip(*rows, strict=True)
    names = ("index", "label", "check", "measure", "value")
    return AuditedRun(
        name,
        pa.table(dict(zip(names, columns, strict=True))),
        settings=settings or {},
        fitness=fitness or {},
    )


def attack(tau=0.5, top=0.6, random=0.7, random_top=0.8, **others):
    known = {
        "preserved": 1.0,
        "top_k_intersection": top,
        "kendall_tau": tau,
        "spearman_rho": min(1.0, tau + 0.1),
        "moved": 0.1,
        "no_direction": 0.0,
        "random_sign_kendall_tau": random,
        "random_sign_top_k_intersection": random_top,
        "random_sign_spearman_rho": random,
        "no_change_kendall_tau": 1.0,
    }
    return known | others


STUCK = attack(1.0, 1.0, 0.337, 0.4, moved=0.0, no_direction=1.0, random_search_kendall_tau=0.281)
STUCK["random_search_top_k_intersection"] = 0.3
BLIND_PGD = {"correct": 1.0, "moved": 0.1, "no_direction": 1.0, "random_search_correct": 0.0}


def reasons(run):
    return struck_out(run)


def test_a_sound_audit_has_nothing_struck_out(tmp_path):
    run = made(
        top_k__gradient=attack(),
        pgd={"correct": 0.0, "moved": 0.1, "no_direction": 0.0},
        fitness={"images": 20, "right": 20, "findings": []},
    )
    compared = table([run])
    assert reasons(run) == {}
    assert compared.notes() == ()
    assert doubt_count(compared, "art") == 0
    page = write_report([run], tmp_path / "page.html").read_text()
    assert "<s>" not in page
    assert "random 70.0" in page  # the yardstick stands beside the figure
    assert "~~" not in to_markdown(compared) + to_csv(compared)
    assert "sout" not in to_latex(compared)
    assert "70.0%" not in headline([run], compared).sentence


def test_old_audits_are_read_as_they_were(make_run):
    run = make_run()
    assert reasons(run) == {}
    assert all(row.random is None and not row.struck for row in summarize(run))
    compared = table([run])
    assert "random" not in to_markdown(compared) + to_csv(compared) + to_latex(compared)
    assert "trust" not in [section.name for section in contents([run], compared)]
    assert doubt_count(compared, run.name) is None


@pytest.mark.parametrize(
    ("measures", "says"),
    [
        (STUCK, "100% of its steps had no direction, and 20 of 20 images did not move"),
        (attack(0.6, no_direction=0.51), "51% of its steps had no direction"),
        ({"preserved": 1.0, "kendall_tau": 1.0, "moved": 0.0}, "20 of 20 images did not move"),
        (attack(0.9, 0.9, 0.5, 0.5), "chance does more than this attack"),
    ],
)
def test_figures_of_an_attack_on_explanations(measures, says):
    struck = reasons(made(top_k__gradient=measures))
    assert says in struck[TOP, "kendall_tau"]
    assert {measure for _, measure in struck} == {
        measure for measure in measures
        if measure in ("kendall_tau", "top_k_intersection", "spearman_rho")
    }  # fmt: skip


def test_the_figures_that_stand_instead():
    why = reasons(made(top_k__gradient=STUCK))[TOP, "kendall_tau"]
    assert "random signs at the same ε leave τ 33.7% and IN 40.0%" in why
    assert "a random search leaves τ 28.1% and IN 30.0%" in why


def test_each_similarity_is_compared_with_its_own_yardstick():
    """An attack on the top pixels may beat chance there, and not in the order of all of them."""
    run = made(top_k__gradient=attack(0.9, 0.3, 0.5, 0.8))
    assert {measure for _, measure in reasons(run)} == {"kendall_tau", "spearman_rho"}
    run = made(top_k__gradient=attack(0.3, 0.9, 0.5, 0.8))
    assert {measure for _, measure in reasons(run)} == {"top_k_intersection"}
    assert reasons(made(top_k__gradient=attack(0.51, 0.6, 0.5, 0.8))) == {}  # by chance


def test_the_same_images_are_compared():
    """Where random signs lost the label there is no yardstick, nor where the attack did."""
    tau = [0.2] * 10 + [None] * 5 + [0.9] * 5
    random = [0.4] * 10 + [0.1] * 5 + [None] * 5
    run = made(top_k__gradient={"preserved": 1.0, "kendall_tau": tau,
                                "random_sign_kendall_tau": random})  # fmt: skip
    assert reasons(run) == {}
    (row,) = [row for row in summarize(run) if row.measure == "kendall_tau"]
    assert row.random == pytest.approx(0.4)


def test_figures_of_an_attack_on_predictions():
    run = made(pgd=BLIND_PGD)
    (why,) = reasons(run).values()
    assert why == "100% of its steps had no direction; a short search without gradients leaves 0.0%"
    # Half of the images were fooled, and no other had a direction: that half is no evidence.
    half = made(pgd={"correct": [0.0] * 10 + [1.0] * 10, "no_direction": [0.0] * 10 + [1.0] * 10})
    assert "at the images that are left right, 100% of its steps" in reasons(half)["pgd", "correct"]
    one = made(pgd={"correct": [0.0] * 99 + [1.0], "no_direction": [0.0] * 99 + [1.0]}, images=100)
    assert reasons(one) == {}
    # Only images that were right to begin with count.
    wrong = made(clean={"correct": [1.0] * 5 + [0.0] * 15},
                 pgd={"correct": 0.0, "no_direction": [0.0] * 5 + [1.0] * 15})  # fmt: skip
    assert reasons(wrong) == {}
    still = made(mine={"correct": 1.0, "moved": 0.0})
    assert reasons(still)["mine", "correct"] == "it moved no image"
    assert reasons(made(mine={"correct": 0.0, "moved": 0.0})) == {}


def test_a_stuck_attack_is_struck_out_wherever_it_stands(tmp_path):
    runs = [made("sound", top_k__gradient=attack(), pgd={"correct": 0.5, "moved": 0.1}),
            made("stuck", top_k__gradient=STUCK, pgd=BLIND_PGD)]  # fmt: skip
    compared = table(runs)
    page = write_report(runs, tmp_path / "page.html").read_text()
    assert len(re.findall(r"<s>100\.0</s>", page)) >= 5
    row = re.search(r'<tr><th scope="row">stuck</th>(.*?)</tr>', page, re.DOTALL)[1]
    assert re.findall(r"<td[^>]*>(?:<strong>)?100\.0", row)[1:] == []  # clean accuracy alone
    assert "random signs at the same ε leave τ 33.7%" in page
    assert "a random search leaves τ 28.1%" in page
    assert "a short search without gradients leaves 0.0%" in page

    lines = to_markdown(compared).splitlines()
    stuck = next(line for line in lines if line.startswith("| stuck"))
    assert "~~100.0 / 100.0~~ (33.7)" in stuck
    assert stuck.count("~~") == 2 * 4  # three similarities and PGD
    assert any(line.startswith("Struck out, “stuck” under top k on gradient (IN, τ and ρ)")
               for line in lines)  # fmt: skip
    sound, stuck = csv.DictReader(io.StringIO(to_csv(compared)))
    assert stuck[f"{TOP}:kendall_tau:mean"] == "~~1.0~~"
    assert stuck["pgd:correct:mean"] == "~~1.0~~"
    assert float(stuck[f"{TOP}:kendall_tau:random"]) == pytest.approx(0.337)
    assert "no direction" in stuck["notes"]
    assert sound["notes"] == ""
    assert float(sound[f"{TOP}:kendall_tau:mean"]) == 0.5
    latex = to_latex(compared)
    assert r"\sout{100.0 / 100.0} (33.7)" in latex
    assert r"\footnotesize Struck out" in latex

    console = rich.console.Console(width=100, file=io.StringIO(), record=True)
    console.print(to_rich(compared))
    printed = console.export_text()
    assert "~~100.0 / 100.0~~" in printed
    assert "had no direction" in printed
    assert "33.7" in printed
    assert "28.1%" in " ".join(printed.split())


def test_a_stuck_attack_is_nobodys_best_and_no_headline():
    runs = [made("sound", top_k__gradient=attack()), made("stuck", top_k__gradient=STUCK)]
    compared = table(runs)
    told = headline(runs, compared)
    assert "“sound” keep a rank correlation of 50.0%" in told.sentence
    assert "Struck out" in told.detail
    assert "“stuck”" in told.detail
    sheet = glance(runs, compared)
    place = [column.title for column in sheet.columns].index("τ under top k on gradient")
    assert sheet.lines[1].cells[place]["struck"] == 1
    assert all(column != place for _, column in sheet.best)
    assert any("“stuck” under top k on gradient" in note for note in sheet.notes)

    alone = table(runs[1:])
    told = headline(runs[1:], alone)
    assert told.sentence.startswith("How well the explanations hold is not known")
    assert "random signs at the same ε leave τ 33.7%" in told.detail


def test_the_strongest_attack_is_one_that_moved():
    many = {f"attack_{n}__gradient": attack(0.5 + n / 50, 0.5, 0.9, 0.9) for n in range(4)}
    many["attack_0__gradient"] = attack(0.2, 0.2, 0.9, 0.9, no_direction=1.0)
    runs = [made(**many)]
    sheet = glance(runs, table(runs))
    titles = [column.title for column in sheet.columns]
    cell = sheet.lines[0].cells[titles.index("τ under the strongest of 4 attacks")]
    assert cell["mean"] == pytest.approx(0.52)


def test_points_of_curves_and_boxes_say_so():
    made_with = {
        name: {"class_path": "TopK", "init_args": {"eps": eps}}
        for name, eps in {TOP: 0.1, f"{TOP}@0.2": 0.2}.items()
    }
    run = made(
        top_k__gradient=attack(),
        **{"top_k__gradient@0.2": STUCK},
        settings={"manipulations": made_with},
    )
    (curve,) = family_curves([run], table([run]), "manipulations")
    assert [point.struck for point in curve.lines["art"]] == [False, False, True]
    labels = box_plot([run], f"{TOP}@0.2", "kendall_tau").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["art\n(struck out)"]
    (sections,) = [s for s in contents([run], table([run])) if s.name == "explanations"]
    assert "(struck out)" in sections.plots[0].alt


def test_what_was_found_before_the_audit_is_told(tmp_path):
    asks = (
        "The model gets 3 of 32 images right, which chance may do. Is the order of classes right?"
    )
    run = made(top_k__gradient=attack(), fitness={"images": 32, "right": 3, "findings": [asks]})
    compared = table([run])
    assert doubt_count(compared, "art") == 1
    assert asks in write_report([run], tmp_path / "page.html").read_text()
    assert "1 doubt about “art”" in headline([run], compared).detail
    console = rich.console.Console(width=120, file=io.StringIO(), record=True)
    console.print(to_rich(compared))
    assert asks in " ".join(console.export_text().split())


def test_an_attack_that_is_blind_at_some_images_is_told_of():
    run = made(top_k__gradient=attack(no_direction=[1.0] * 4 + [0.0] * 16))
    assert reasons(run) == {}
    (found,) = table([run]).findings["art"]
    assert found == "Top k on gradient: at 20% of the images most steps had no direction."


def test_measures_beside_an_attack_are_not_other_measures():
    run = made(top_k__gradient=STUCK, pgd=BLIND_PGD)
    assert "others" not in [section.name for section in contents([run], table([run]))]


def test_attacks_on_gradients_that_do_not_change_are_no_evidence():
    # Of IG the image is a part, so that its attack has a direction at every step.
    checks = {
        "top_k__integrated_gradients": attack(),
        "random_sign__gradient": attack(no_direction=None),
    }
    assert reasons(made(**checks, fitness={"flat": False})) == {}
    found = reasons(made(**checks, fitness={"flat": True}))
    assert {check for check, _ in found} == {"top_k/integrated_gradients"}
    assert len(found) == 3
    why = found["top_k/integrated_gradients", "kendall_tau"]
    assert why.startswith("the gradients that it follows do not change with the image; random")
    assert "τ 70.0%" in why
