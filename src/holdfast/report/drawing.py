"""How pages are made: their templates, figures as SVG in their colours, pictures as addresses."""

from __future__ import annotations

import base64
import io
import re

import jinja2
import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imsave

from holdfast import plot
from holdfast.report import curves, figures

__all__ = ["data_address", "inline_svg", "page_templates"]

# The colours of the figures, which inline SVG may take from the page, and so follow its dark mode.
SVG_COLOURS = {
    plot.INK: "var(--ink)",
    plot.QUIET: "var(--quiet)",
    figures.ACCENT: "var(--accent)",
    **{colour: f"var(--line-{n})" for n, colour in enumerate(curves.COLOURS) if n > 0},
}
# Pictures beyond this side are photographs, mostly, and far smaller as JPEG.
SMALL = 96


def page_templates(*packages: str) -> jinja2.Environment:
    """Open the templates of packages of Holdfast; text in them is escaped, figures become SVG.

    Examples
    --------
    >>> page_templates("report").from_string("{{ text }}").render(text="<b>")
    '&lt;b&gt;'
    """
    loaders = [jinja2.PackageLoader(f"holdfast.{package}") for package in packages]
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["svg"] = lambda figure, name: Markup(inline_svg(figure, name))
    return templates


def inline_svg(figure: Figure, name: str) -> str:
    """Write a figure as SVG to stand in the page, in its colours and its font.

    Parameters
    ----------
    figure : Figure
        The figure.
    name : str
        Unlike that of any other figure in the page; the ids in the drawing begin with it.

    Examples
    --------
    >>> inline_svg(Figure(), "empty")[:4]
    '<svg'
    """
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": None}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing).replace("xlink:href=", "href=")
    drawing = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", drawing)
    for colour, variable in SVG_COLOURS.items():
        drawing = drawing.replace(colour, variable)
    # Ids are per figure, and a page holds several.
    salt = re.sub(r"\W", "-", name)
    drawing = re.sub(r'\bid="', f'id="{salt}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{salt}-", drawing)
    return re.sub(r'href="#', f'href="#{salt}-', drawing)


def data_address(colours: Float[np.ndarray, "h w 3"]) -> str:
    """Write a picture as a data address, exact to the pixel if it is small.

    Examples
    --------
    >>> data_address(np.ones((2, 2, 3)))[:22]
    'data:image/png;base64,'
    """
    kind = "png" if max(colours.shape[:2]) <= SMALL else "jpeg"
    quality = {"quality": 88} if kind == "jpeg" else {}
    pixels = np.ascontiguousarray(np.round(255 * colours).astype(np.uint8))
    data = io.BytesIO()
    imsave(data, pixels, format=kind, pil_kwargs=quality)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
