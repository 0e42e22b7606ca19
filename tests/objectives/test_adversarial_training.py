import pytest
import torch

from holdfast.adversarial import PGD
from holdfast.objectives import AdversarialTraining


def test_is_the_cross_entropy_of_the_attacked_images(smooth_model):
    images, labels = torch.rand(3, 2, 5, 5).double(), torch.tensor([0, 3, 1])
    attack = PGD(eps=0.1, step_size=0.05, steps=3, seed=0)
    attacked = attack(smooth_model, images, labels)
    expected = -smooth_model(attacked).log_softmax(1)[torch.arange(3), labels].mean()
    terms = AdversarialTraining(attack)(smooth_model, {"images": images, "labels": labels})
    assert terms["loss"].item() == pytest.approx(expected.item())


def test_attacks_in_eval_mode_and_trains_in_the_models_own(stateful_model):
    batch = {"images": torch.rand(8, 2, 5, 5), "labels": torch.randint(4, (8,))}
    terms = AdversarialTraining(PGD(0.1, 0.05, 3))(stateful_model, batch)
    assert stateful_model[1].num_batches_tracked == 1  # only the loss's pass counts
    terms["loss"].backward()
    assert stateful_model[6].weight.grad.isfinite().all()


@pytest.mark.parametrize("field", ["eps=0.03", "step_size=0.0078", "steps=10", "norm='linf'"])
def test_default_is_pgd_10_at_8_of_255(field):
    assert field in repr(AdversarialTraining())
