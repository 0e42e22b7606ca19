import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from holdfast import plot
from holdfast.attributions import GradCAM, Gradient
from holdfast.contracts import InputError
from holdfast.plot import heat_map, overlay, picture


def test_heat_map_is_white_at_zero_and_signed():
    attribution = np.zeros((2, 1, 3))
    attribution[:, 0, 1] = 0.5, 0.5
    attribution[:, 0, 2] = -2.0, 1.0
    white, positive, negative = heat_map(attribution)[0]
    assert white.tolist() == [1, 1, 1]
    assert positive[0] > positive[2]
    assert negative[2] > negative[0]


def test_heat_map_ends_at_the_99th_percentile():
    attribution = np.linspace(0, 1, 1000).reshape(1, 20, 50)
    attribution[0, -1, -1] = 100.0
    colours = heat_map(attribution).reshape(-1, 3)
    ordered = np.sort(attribution.ravel())
    clipped = attribution.ravel() >= np.percentile(ordered, 99)
    assert (colours[clipped] == colours[-1]).all()
    assert (colours[attribution.ravel() < 0.9] != colours[-1]).any(axis=1).all()


def test_heat_map_of_nearly_nothing():
    attribution = np.zeros((1, 20, 20))
    attribution[0, 0, 0] = 1e-12
    colours = heat_map(attribution)
    assert colours[0, 0, 0] < 1
    assert (colours[1:] == 1).all()


def test_picture_of_two_channels_is_their_mean():
    image = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    np.testing.assert_array_equal(picture(image), np.full((2, 2, 3), 0.5))


def test_heat_map_ends_at_the_largest_value_if_told():
    attribution = np.array([[[0.0, -4.0, 2.0]]])
    colours = heat_map(attribution, percentile=100.0)
    darkest, half = heat_map(np.array([[[-1.0, 1.0]]]))[0], heat_map(np.array([[[0.5, 1.0]]]))[0]
    assert colours[0, 1].tolist() == darkest[0].tolist()
    assert colours[0, 2].tolist() == half[0].tolist()


def test_blur_comes_before_the_scale():
    attribution = np.random.default_rng(0).normal(size=(3, 12, 9))
    blurred = gaussian_filter(attribution.sum(0), 1.5)[None]
    expected = heat_map(blurred / np.abs(blurred).max(), percentile=100.0)
    np.testing.assert_allclose(heat_map(attribution, blur=1.5, percentile=100.0), expected)


def test_overlay_shows_the_image_where_the_map_is_zero_and_the_map_where_it_is_strongest():
    attribution = np.array([[[0.0, 0.0, 3.0, -3.0]]])
    image = np.array([[[0.0, 1.0, 0.2, 0.8]]])
    colours = overlay(attribution, image)[0]
    black, white, positive, negative = colours
    assert black[0] == black[1] == black[2] < white[0] == white[1] == white[2] == 1
    np.testing.assert_array_equal([positive, negative], heat_map(attribution)[0, 2:])
    assert ((colours >= 0) & (colours <= 1)).all()


def test_grid_has_a_row_for_each_image_and_a_column_for_each_method():
    images = torch.rand(3, 2, 6, 8)
    maps = {"first": torch.randn(3, 2, 6, 8), "a_rather_long_name_$": torch.randn(3, 1, 6, 8)}
    figure = plot.grid(images, maps, ["one", "two", "$three"])
    figure.draw_without_rendering()
    axes = np.array(figure.axes).reshape(3, 3)
    assert [a.get_title() for a in axes[0]] == ["image", "first", "a rather long\nname $"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["one", "two", "$three"]
    assert not any(a.get_title() for a in axes[1:].flat)
    for n, row in enumerate(axes):
        shown = [a.images[0].get_array() for a in row]
        np.testing.assert_allclose(shown[0], picture(images[n].numpy()))
        for values, drawn in zip(maps.values(), shown[1:], strict=True):
            expected = overlay(values[n].numpy(), images[n].numpy(), blur=8 * 10 / 224)
            np.testing.assert_allclose(drawn, expected)


def test_show_map_without_an_image_and_without_blur():
    attribution = torch.randn(2, 5, 5, dtype=torch.float64)
    axes = Figure().add_subplot()
    plot.show_map(attribution, axes, blur=0.0)
    expected = heat_map(attribution.numpy(), percentile=100.0)
    np.testing.assert_allclose(axes.images[0].get_array(), expected)


@pytest.fixture
def model():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    model[3].weight.data.zero_()
    model[3].bias.data = torch.tensor([0.0, 1.0, 0.0])
    return model


def test_explain_tells_of_maps_that_explain_nothing(recwarn):
    class Rounds(nn.Module):
        def forward(self, x):
            return (9 * x).round() / 9

    torch.manual_seed(0)
    sees = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(2, 1, 8, 8)
    plot.explain(sees, images, {"gradient": Gradient()})
    assert not recwarn.list
    with pytest.warns(UserWarning, match="gradient gives 2 of 2 images a map without any diff"):
        plot.explain(nn.Sequential(Rounds(), sees), images, {"gradient": Gradient()})


@pytest.mark.parametrize("named", ["given", "known", "numbers"])
def test_explain_captions_prediction_and_confidence(named, model):
    if named == "known":
        model.classes = ("ant", "bee", "cat")
    classes = ["ant", "bee", "cat"] if named == "given" else None
    methods = {"gradient": Gradient(), "grad_cam": GradCAM()}
    figure = plot.explain(model, torch.rand(2, 1, 8, 8), methods, classes=classes)
    confidence = round(100 * np.e / (np.e + 2))
    name = "1" if named == "numbers" else "bee"
    assert [a.get_ylabel() for a in figure.axes[::3]] == [f"{name}\n{confidence} %"] * 2


def test_explain_draws_the_maps_of_the_targets(model):
    model[3].weight.data.normal_()
    images, targets = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    figure = plot.explain(model, images, {"gradient": Gradient()}, targets)
    maps = Gradient()(model, images, targets)
    for n in range(2):
        expected = overlay(maps[n].numpy(), images[n].numpy(), blur=8 * 10 / 224)
        np.testing.assert_allclose(figure.axes[2 * n + 1].images[0].get_array(), expected)


def test_refuses(model, own_errors):
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(InputError, match="maps: expected the maps of at least one method"):
        plot.explain(model, images, {})
    with pytest.raises(InputError, match="classes: expected 3 names"):
        plot.explain(model, images, {"gradient": Gradient()}, classes=["ant"])
    with pytest.raises(InputError, match=r"maps\['a'\]: expected shape \(2, 1, 8, 8\)"):
        plot.grid(images, {"a": torch.rand(1, 1, 8, 8)})
    with pytest.raises(InputError, match="captions: expected 2, one for each image"):
        plot.grid(images, {"a": images}, ["one"])


def test_leaves_pyplot_alone(imported):
    assert "holdfast.plot" in imported
    assert "matplotlib.pyplot" not in imported


def test_a_notebook_shows_the_figure_as_it_is_saved(tmp_path):
    figure = plot.grid(torch.rand(1, 1, 6, 8), {"gradient": torch.randn(1, 1, 6, 8)})
    file = tmp_path / "cell.png"
    file.write_bytes(figure._repr_png_())  # what IPython asks for at the end of a cell
    with Image.open(file) as shown:
        width, height = (110 * figure.get_size_inches()).astype(int)
        assert shown.size == (width, height)
        assert len(shown.convert("RGB").getcolors(100_000)) > 20
