"""Hyper-parameters of a wrong type are refused in every public class, by one rule."""

import dataclasses
import functools
import inspect
from fractions import Fraction
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

import holdfast.audit
import holdfast.data
import holdfast.models
import holdfast.training
from holdfast import adversarial, attributions, manipulation, objectives
from holdfast.adversarial import FGSM, PGD
from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.contracts import Attack, Attribution, HoldfastError, InputError, Objective
from holdfast.contracts.fields import fits, settled
from holdfast.manipulation import TopK
from holdfast.preprocessing import Preprocessing

PACKAGES = (
    adversarial,
    attributions,
    manipulation,
    objectives,
    holdfast.audit,
    holdfast.data,
    holdfast.models,
    holdfast.training,
)
RESULTS = {
    "Boundary",
    "EnsembleOutcome",
    "Trust",
    "Fitness",
    "NamedModel",
    "Imported",
    "Description",
}
"""What Holdfast makes itself."""


def _public():
    named = [getattr(package, name) for package in PACKAGES for name in package.__all__]
    kinds = {one for one in named if isinstance(one, type) and dataclasses.is_dataclass(one)}
    return sorted(
        {kind for kind in kinds if kind.__name__ not in RESULTS} | {Preprocessing},
        key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
    )


PUBLIC = _public()


def _sensible(kind: type) -> dict[str, Any]:
    """Values for the fields that have no default."""
    given: dict[str, Any] = {
        "eps": 0.1,
        "step_size": 0.01,
        "steps": 1,
        "k": 1,
        "attribution": Gradient(),
        "manipulation": TopK(Gradient(), k=1, eps=0.1, step_size=0.1, steps=1),
        "attack": FGSM(0.1),
        "source": nn.Flatten(),
        "teacher": nn.Flatten(),
        "reference": nn.Flatten(),
        "first": objectives.Natural(),
        "then": objectives.Natural(),
        "data": holdfast.data.ImageData(),
        "model": holdfast.models.Architecture("mlp"),
        "objective": objectives.Natural(),
        "attributions": {"gradient": Gradient()},
        "size": (8, 8),
        "layers": ("0",),
        "name": "mlp",
        "norm": "linf",
        "severity": 1,
    }
    if kind is attributions.FromCaptum:
        import captum.attr

        given = {"method": captum.attr.Saliency, "settings": {}}
    if kind is adversarial.Corruption:
        given["name"] = "fog"
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    return {name: given[name] for name in required}


WRONG = {
    int: ("x", 2.5, True, None, np.float32(2.0), torch.tensor(True), [1], 2**70),
    float: ("x", True, None, float("nan"), float("inf"), torch.ones(2), 10**400, 1j),
    bool: ("x", 1, None, 0.0),
    str: (3, None, b"x", ["x"]),
}


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_public_class_refuses_wrong_types(kind):
    sensible = _sensible(kind)
    kind(**sensible)
    for name, hint in get_type_hints(kind).items():
        if name not in inspect.signature(kind).parameters or hint is Any:
            continue
        for value in WRONG.get(hint, (object(), 1j, type)):
            if hint == type[Any] and value is type:
                continue
            with pytest.raises(InputError, match=rf"^(a key of )?{kind.__name__}\.{name}"):
                kind(**{**sensible, name: value})


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("seed", [-1, 2**32, 2**70, "x", 1.5, True])
def test_seeds_out_of_range_are_refused_everywhere(seed):
    seeded = [kind for kind in PUBLIC if "seed" in inspect.signature(kind).parameters]
    assert len(seeded) > 15
    for kind in seeded:
        with pytest.raises(InputError, match=rf"{kind.__name__}\.seed"):
            kind(**{**_sensible(kind), "seed": seed})


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("three", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_other_libraries_become_pythons(three):
    steps = PGD(eps=0.1, step_size=0.1, steps=three).steps
    assert (type(steps), steps) == (int, 3)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    "half", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5), Fraction(1, 2)]
)
def test_numbers_of_other_libraries_become_pythons(half):
    eps = PGD(eps=half, step_size=1, steps=3).eps
    assert (type(eps), eps) == (float, 0.5)


@pytest.mark.usefixtures("own_errors")
def test_what_is_equal_is_written_alike():
    assert repr(PGD(1, 1, 1)) == repr(PGD(1.0, 1.0, 1))


@pytest.mark.usefixtures("own_errors")
class TestParts:
    @pytest.mark.parametrize("wrong", [3, "ig", None, Gradient, PGD(0.1, 0.1, 1), FGSM(0.1)])
    def test_no_attribution(self, wrong):
        with pytest.raises(InputError, match=r"TopK.attribution: expected what is called with \("):
            TopK(wrong, k=1, eps=0.1, step_size=0.1, steps=1)

    def test_own_functions_with_own_names(self):
        def own(net, x, y=None, *, create_graph=False):
            return x

        for method in (own, functools.partial(own, create_graph=True), IntegratedGradients()):
            assert TopK(method, k=1, eps=0.1, step_size=0.1, steps=1).attribution is method

    def test_which_protocol_a_method_fits(self):
        assert fits(PGD, Attack)
        assert not fits(PGD, Attribution)
        assert not fits(PGD, Objective)
        assert not fits(objectives.Natural(), Attack)
        assert fits(lambda *arguments: None, Attack)

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("attacks", [FGSM(0.1)]),
            ("attacks", {"x": Gradient()}),
            ("attacks", {3: FGSM(0.1)}),
            ("manipulations", {"x": FGSM(0.1)}),
            ("checks", {"x": 3}),
        ],
    )
    def test_parts_of_an_audit(self, field, wrong):
        with pytest.raises(InputError, match=rf"Audit\.{field}"):
            holdfast.audit.Audit(**{field: wrong})

    def test_other_parts(self):
        with pytest.raises(InputError, match=r"ART\.attack: expected a PGD, got FGSM"):
            objectives.ART(attack=FGSM(0.1))
        with pytest.raises(InputError, match=r"Transfer\.source: expected an nn.Module, got str"):
            adversarial.Transfer(FGSM(0.1), source="runs/x")


class TestSettled:
    @pytest.mark.parametrize(
        ("hint", "value", "made"),
        [
            (int | float | None, 1, 1),
            (int | float | None, 0.5, 0.5),
            (int | float | None, None, None),
            (int | tuple[int, int], [3, 4], (3, 4)),
            (Literal[1, 3] | None, np.int64(3), 3),
            (dict[int, float], {np.int64(3): 1}, {3: 1.0}),
            (str, np.str_("x"), "x"),
        ],
    )
    def test_becomes(self, hint, value, made):
        own = settled(hint, value, "x")
        assert repr(own) == repr(made)

    def test_what_fits_stays_the_same_object(self):
        given = {"a": Gradient()}
        assert settled(dict[str, Attribution], given, "x") is given

    @pytest.mark.parametrize(
        ("hint", "value", "says"),
        [
            (tuple[int, int], (1, 2, 3), "2 values, each an integer"),
            (tuple[int, int], "12", "2 values, each an integer"),
            (Literal[1, 3], True, "1 or 3"),
            (Literal["a", "b"], ["a"], "'a' or 'b'"),
            (int | None, 2.5, "an integer or None"),
            (dict[int, float], {"a": 1.0}, "an integer, got 'a'"),
            (dict[str, float], {"a": "b"}, "x.a: expected a finite number"),
        ],
    )
    def test_refuses(self, hint, value, says):
        with pytest.raises(InputError, match=says):
            settled(hint, value, "x")

    def test_a_long_value_is_cut(self):
        with pytest.raises(InputError) as caught:
            settled(int, "x" * 10_000, "x")
        assert len(str(caught.value)) < 300


def test_a_subclass_whose_hints_cannot_be_read_is_made_all_the_same():
    @dataclasses.dataclass(frozen=True)
    class Own(PGD):
        extra: "NotImported" = None

    assert Own(0.1, 0.1, 1).extra is None
    with pytest.raises(HoldfastError):
        Own(-1.0, 0.1, 1)
