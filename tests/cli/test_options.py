import pytest

from holdfast.cli.options import as_written


@pytest.mark.parametrize(
    ("message", "words", "said"),
    [
        ("ImageData.size: expected 1", "--data.size x", "--data.size: expected 1"),
        ("ImageData.size: expected 1", "--data.size=x", "--data.size: expected 1"),
        ("data.size: expected 1", "--set data.size=x", "--data.size: expected 1"),
        ("ImageData.size: expected 1", "--data {size:-1}", "--data.size: expected 1"),
        ("ImageData.size: expected 1", "--data.limit 3", "data.size: expected 1"),
        ("ROAR.shares: expected 1", "--roar.shares 3", "--roar.shares: expected 1"),
        ("optimizer.lr: expected 1", "--optimizer.lr 3", "--optimizer.lr: expected 1"),
        ("objective.attack.eps: e", "--objective.attack={}", "--objective.attack.eps: e"),
        ("recipe.trainer.devices: e", "--trainer.devices 2", "--trainer.devices: e"),
        ("batch_size: expected 1", "--batch_size 0", "--batch_size: expected 1"),
        ("batch_size in mine.yaml: e", "--seed 0", "batch_size in mine.yaml: e"),
        ("no recipe 'x'", "--seed 0", "no recipe 'x'"),
        ("… (1)", "--seed 0", "… (1)"),
    ],
)
def test_a_setting_is_named_as_the_user_wrote_it(message, words, said):
    assert as_written(message, ["train", "mine.yaml", *words.split()]) == said
