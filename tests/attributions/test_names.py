from holdfast import attributions
from holdfast.attributions import METHODS
from holdfast.contracts import Attribution

OTHERS = {"ig_white": "ig", "agi_authors": "agi"}


def test_every_method_has_one_name():
    methods = {
        getattr(attributions, name)
        for name in attributions.__all__
        if isinstance(getattr(attributions, name), type)
        and issubclass(getattr(attributions, name), Attribution)
    }
    methods.remove(attributions.FromCaptum)  # it is one only together with a class of Captum
    own = {name: method for name, method in METHODS.items() if name not in OTHERS}
    assert {type(method) for method in own.values()} == methods
    assert len(own) == len(methods)
    assert all(method == type(method)() for method in own.values())


def test_other_settings_differ_and_come_behind_the_methods_own():
    names = list(METHODS)
    for other, own in OTHERS.items():
        assert type(METHODS[other]) is type(METHODS[own])
        assert METHODS[other] != METHODS[own]
        assert names.index(other) > names.index(own)
