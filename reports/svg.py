"""A figure's SVG, made fit to stand inside the page: own ids, the page's font and colours, no fixed size."""

import re
from html import escape

from acn_cl.reports.figures import FAINT, GROUND, INK
from acn_cl.reports.labels import COLOURS

PAGE_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--rule)",
    GROUND: "var(--ground)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS, start=1)},
}
"""A colour as matplotlib writes it, and what stands for it on the page, where it follows light and dark."""


def inline(svg: str, name: str, title: str) -> str:
    """The ``<svg>`` element of a file that matplotlib wrote.

    Args:
        svg: the file's text.
        name: prefix of its ids, unique on the page, for matplotlib gives the same ids in every file; letters, digits.
        title: read out instead of the picture; plain text.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.S)
    element = re.sub(r">\s+<", "><", element)
    element = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', element)
    element = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", element)
    element = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', element)
    for colour, on_page in PAGE_COLOURS.items():
        element = element.replace(colour, on_page)
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}">{rest.strip()}'
