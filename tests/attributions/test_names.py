from holdfast import attributions
from holdfast.attributions import METHODS
from holdfast.contracts import Attribution


def test_every_method_has_one_name():
    methods = {
        getattr(attributions, name)
        for name in attributions.__all__
        if isinstance(getattr(attributions, name), type)
        and issubclass(getattr(attributions, name), Attribution)
    }
    methods.remove(attributions.FromCaptum)  # it is one only together with a class of Captum
    assert {type(method) for method in METHODS.values()} == methods
    assert len(METHODS) == len(methods)
    assert all(method == type(method)() for method in METHODS.values())
