import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from holdfast.report.curves import COLOURS, Curve, Point, curve_plot
from holdfast.report.drawing import data_address, inline_svg


def read(address):
    kind, _, data = address.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_small_pictures_are_exact():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3))
    kind, shown = read(data_address(pixels / 255))
    assert kind == "data:image/png"
    np.testing.assert_array_equal(shown, pixels)


def test_large_pictures_are_small_files():
    ramp = np.linspace(0, 1, 224)[:, None, None] * np.ones((224, 224, 3))
    kind, shown = read(data_address(ramp))
    assert kind == "data:image/jpeg"
    assert shown == pytest.approx(255 * ramp, abs=4)


def test_lines_take_their_colours_from_the_page():
    lines = {f"m{n}": (Point(0.0, 0.5), Point(1.0, 0.1 * n)) for n in range(6)}
    text = inline_svg(curve_plot(Curve("c", "accuracy", "ε", "accuracy, %", lines)), "one")
    assert not any(colour in text for colour in COLOURS)
    assert {f"var(--line-{n})" for n in range(1, 6)} <= set(re.findall(r"var\(--line-\d\)", text))


def test_ids_of_two_figures_differ():
    ids = []
    for name in ("a b", "c"):
        figure = Figure()
        figure.add_subplot().plot([0, 1], [1, 0])
        ids.append(set(re.findall(r'\bid="([^"]*)"', inline_svg(figure, name))))
    assert not ids[0] & ids[1]
