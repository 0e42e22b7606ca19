import dataclasses

import pytest

from holdfast.audit import ROAR, Audit
from holdfast.cli import known
from holdfast.cli.known import check_known
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.training import OptimizerSettings, Recipe


@pytest.mark.parametrize("kind", [ImageData, Architecture, OptimizerSettings, Audit, ROAR, Recipe])
def test_fields_are_read_as_python_has_them(kind):
    places = {name: place for place, name in known._GROUPS.values()}
    file = places.get(kind.__name__, "training/recipe.py")
    expected = [field.name for field in dataclasses.fields(kind)]
    assert known._fields(file, kind.__name__) == expected


@pytest.mark.parametrize(
    ("keys", "groups", "says"),
    [
        (["ouput"], (), "has no option --ouput; did you mean --output?"),
        (["x"], (), "has no option --x$"),
        (["trainr.max_steps"], ("data", "optimizer"), "no option --trainr.max_steps. .*--trainer"),
        (["trainer.max_steps"], ("data",), "It has settings --data.…$"),
        (["data.sise"], ("data",), "did you mean --data.size\\? There are --data.path, "),
        (["data.size.x.y", "model.nmae"], ("data", "model"), "did you mean --model.name"),
        (["objective"], ("data", "audit"), "no option --objective"),
    ],
)
def test_says_what_was_meant(keys, groups, says):
    with pytest.raises(HoldfastError, match=says):
        check_known("holdfast x", ["--output"], keys, groups)


def test_lets_what_is_known_pass():
    keys = ["data", "data.size", "objective.anything.at.all", "trainer.max_steps", "seed"]
    check_known("holdfast train", [], [*keys, "roar.shares"], ("data", "optimizer", "roar"))
