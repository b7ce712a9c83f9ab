"""The representation of an object in a notebook, made in the process of the object."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from .._etf.terms import Atom
from . import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    Representation = tuple[Any, Any]

_VEGA_LITE = "application/vnd.vegalite+json"
# The first of these methods that an object has is used.
_METHODS = {
    "text/html": "_repr_html_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
}
_PREFERRED = (*_METHODS, "text/plain")
_IMAGES = ("image/png", "image/jpeg")

_renderers: dict[type, Callable[[Any], object]] = {}


def register_renderer(cls: type, renderer: Callable[[Any], object]) -> None:
    """Set the function that decides how notebooks show objects of a class and of its subclasses.

    `renderer(obj)` returns HTML, or a dictionary that maps MIME types to data. If it returns `None`, the object's
    own methods are used.

    >>> from decimal import Decimal
    >>> register_renderer(Decimal, lambda number: f"<b>{number}</b>")
    >>> represent(Decimal("1.5"))
    ('text/html', '<b>1.5</b>')
    >>> del _renderers[Decimal]
    """
    _renderers[cls] = renderer


def represent(obj: object) -> Representation:
    """Return the MIME type and the data of an object's representation; for a data frame, the type is the atom `table`.

    >>> represent([1, 2])
    ('text/plain', '[1, 2]')
    """
    return _rich(obj) or ("text/plain", repr(obj))


def is_rich(obj: object) -> bool:
    """Return whether an object has more than a text. Such an object stays in Python.

    >>> is_rich("text")
    False
    """
    cls = type(obj)
    return (
        tables.is_frame(obj)
        or _renderer(cls) is not None
        or _is_figure(obj)
        or any(
            callable(getattr(cls, method, None))
            for method in ("_repr_mimebundle_", *_METHODS.values())
        )
    )


def _rich(obj: Any) -> Representation | None:  # noqa: ANN401 - whatever it is
    renderer = _renderer(type(obj))
    if renderer is not None:
        shown = renderer(obj)
        if shown is not None:
            return _chosen(shown if isinstance(shown, dict) else {"text/html": shown})
    if tables.is_frame(obj):
        return Atom("table"), tables.describe(obj)
    if _is_figure(obj):
        return "image/png", figure_png(obj)
    if hasattr(type(obj), "to_plotly_json") and hasattr(obj, "to_html"):
        return "text/html", obj.to_html(include_plotlyjs="cdn", full_html=False)
    if _is_altair(obj):
        # The JSON document describes the chart, whereas its MIME bundle is a page that draws it.
        return _VEGA_LITE, obj.to_json()
    bundle = _ask(obj, "_repr_mimebundle_")
    chosen = _chosen(bundle) if bundle else None
    if chosen is not None and chosen[0] != "text/plain":
        return chosen
    for mime, method in _METHODS.items():
        data = _ask(obj, method)
        if data is not None:
            return mime, _data(mime, data)
    return chosen


def _renderer(cls: type) -> Callable[[Any], object] | None:
    return next((_renderers[base] for base in cls.__mro__ if base in _renderers), None)


def _ask(obj: object, method: str) -> Any:  # noqa: ANN401 - whatever the object says
    """Return the result of an object's method; `None` if there is no such method."""
    if not callable(getattr(type(obj), method, None)):
        return None
    answer = getattr(obj, method)()
    # A tuple has metadata as well.
    return answer[0] if isinstance(answer, tuple) else answer


def _chosen(bundle: dict[str, Any]) -> Representation | None:
    for mime, data in bundle.items():
        # Of any version; the document names its schema.
        if mime.startswith("application/vnd.vegalite."):
            return _VEGA_LITE, json.dumps(data)
    return next(
        ((mime, _data(mime, bundle[mime])) for mime in _PREFERRED if bundle.get(mime) is not None),
        None,
    )


def _data(mime: str, data: Any) -> Any:  # noqa: ANN401 - text, bytes or a document
    if mime in _IMAGES and isinstance(data, str):
        import base64

        return base64.b64decode(data)
    return data


def _is_altair(obj: object) -> bool:
    chart = getattr(sys.modules.get("altair"), "TopLevelMixin", None)
    return chart is not None and isinstance(obj, chart)


def _is_figure(obj: object) -> bool:
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(obj, module.Figure)


def figure_png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is not imported here
    """Return a matplotlib figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def take_open_figures(shown: object = None) -> list[bytes]:
    """Return matplotlib's open figures as PNGs, and close them; without the figure `shown`, which is shown anyway."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    try:
        return [figure_png(figure) for figure in figures if figure is not shown]
    finally:
        pyplot.close("all")
