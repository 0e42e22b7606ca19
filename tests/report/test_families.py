import dataclasses

import pytest

from holdfast.report.families import families, folded


def with_attacks(run, **attacks):
    return dataclasses.replace(run, settings={"attacks": attacks})


def pgd(eps, steps=40, **more):
    arguments = {"eps": eps, "step_size": eps / 4, "steps": steps, **more}
    return {"class_path": "PGD", "init_args": arguments}


def test_epsilon_steps_and_manipulations_are_told_apart(make_whole_run):
    run = make_whole_run()
    eps, steps = families([run], "attacks")
    assert eps.setting == "eps"
    assert list(eps.members["art"].values()) == ["pgd_2", "pgd_4", "pgd_8", "pgd_16"]
    assert [255 * value for value in eps.members["art"]] == pytest.approx([2, 4, 8, 16])
    assert steps.setting == "steps"
    assert steps.members["art"] == {40: "pgd_8", 100: "pgd_100", 500: "pgd_500"}
    (top,) = families([run], "manipulations")
    assert list(top.members["art"].values()) == [
        f"top_k{name}/integrated_gradients" for name in ("_4", "", "_16")
    ]


def test_what_stands_for_a_family(make_whole_run):
    run = make_whole_run()
    assert [family.main for family in families([run], "attacks")] == ["pgd_2", "pgd_500"]
    assert folded([run]) == {
        "pgd_4", "pgd_8", "pgd_16", "pgd_100",
        "top_k_4/integrated_gradients", "top_k_16/integrated_gradients",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attacks", "found"),
    [
        ({"pgd_2": pgd(0.1), "pgd_4": pgd(0.2)}, [["pgd_2", "pgd_4"]]),
        ({"pgd_2": pgd(0.2), "pgd_4": pgd(0.1)}, [["pgd_4", "pgd_2"]]),
        ({"pgd_2": pgd(0.1, norm="l2"), "pgd_4": pgd(0.2, norm="linf")}, []),
        ({"pgd_2": pgd(0.1, steps=10), "pgd_4": pgd(0.2, steps=20)}, []),
        ({"pgd_2": pgd(0.1, 10), "pgd_4": pgd(0.1, 20)}, []),
        ({"pgd_2": pgd(0.1, 10), "pgd_4": pgd(0.1, 20), "pgd_8": {"class_path": "PGD"}}, []),
        ({"pgd_2": pgd(0.1), "pgd_4": pgd(0.1)}, []),
        ({"pgd_2": pgd(0.1), "never_made": pgd(0.2)}, []),
        ({"pgd_2": pgd(True), "pgd_4": pgd(False)}, []),
        ({"pgd_2": "a word", "pgd_4": None}, []),
    ],
)
def test_only_one_number_differs(make_whole_run, attacks, found):
    run = with_attacks(make_whole_run(), **attacks)
    members = [[*family.members["art"].values()] for family in families([run], "attacks")]
    assert members == found


def test_runs_share_a_family_whatever_its_checks_are_called(make_whole_run):
    one = with_attacks(make_whole_run("one"), pgd_2=pgd(0.1), pgd_4=pgd(0.2))
    two = with_attacks(make_whole_run("two"), pgd_8=pgd(0.1), pgd_16=pgd(0.3))
    (family,) = families([one, two], "attacks")
    assert family.members == {
        "one": {0.1: "pgd_2", 0.2: "pgd_4"},
        "two": {0.1: "pgd_8", 0.3: "pgd_16"},
    }


def test_no_settings(make_run, make_whole_run):
    assert families([make_run("old")], "attacks") == ()
    odd = dataclasses.replace(make_whole_run(), settings={"attacks": ["pgd"]})
    assert families([odd], "attacks") == ()
    assert folded([odd]) == frozenset()


def test_settings_of_any_kind_are_no_fault(make_whole_run):
    run = make_whole_run()
    odd = {1: 2, "a": [3, {"b": None}]}
    attacks = {"pgd_2": pgd(0.1, odd=odd), "pgd_4": pgd(0.2, odd=odd), "pgd_8": pgd(float("inf"))}
    (eps,) = families([with_attacks(run, **attacks)], "attacks")
    assert eps.members["art"] == {0.1: "pgd_2", 0.2: "pgd_4"}
    for settings in (7, None, [], {"pgd_2": 7}, {"pgd_2": {"init_args": [1]}}):
        assert families([dataclasses.replace(run, settings={"attacks": settings})], "attacks") == ()
