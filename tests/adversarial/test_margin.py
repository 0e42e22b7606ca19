import torch

from holdfast.adversarial.margin import margin


def test_equals_the_naive_loop():
    logits, labels = torch.randn(20, 5, dtype=torch.float64) - 3, torch.randint(5, (20,))
    expected = [
        row[y] - max(value for k, value in enumerate(row) if k != y)
        for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert torch.allclose(margin(logits, labels), torch.tensor(expected, dtype=torch.float64))


def test_its_slope_is_one_up_and_one_down():
    logits = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    margin(logits, torch.tensor([1])).sum().backward()
    assert logits.grad.tolist() == [[0.0, 1.0, -1.0]]
