import torch

from holdfast.audit.measures import spread


def test_others_are_nan():
    chosen = torch.tensor([True, False, True])
    whole = spread({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([True, False])}, chosen)
    assert whole["a"].tolist()[::2] == [1, 2]
    assert whole["b"].tolist()[::2] == [1, 0]
    assert all(values[1].isnan() for values in whole.values())
    assert spread({"a": torch.empty(0)}, torch.zeros(2, dtype=torch.bool))["a"].isnan().all()
