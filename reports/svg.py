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

FINE = re.compile(r"(?<=\.\d\d)\d+")
"""The decimals of a coordinate beyond the second: a hundredth of a point is not seen."""
CELL = re.compile(r"M (\S+) (\S+)\s*L (\S+) \2\s*L \3 (\S+)\s*L \1 \4\s*L \1 \2\s*(?=\")")
"""A rectangle as matplotlib writes the cells of a matrix."""
CELLS = re.compile(r'(?<=QuadMesh_.">)(?:<path d="M[^"]*z" [^>]*/>)+')
PATH = re.compile(r'<path d="([^"]+)" ([^>]*)/>')


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
    element = _shortened(element)
    element = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', element)
    element = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", element)
    element = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', element)
    for colour, on_page in PAGE_COLOURS.items():
        element = element.replace(colour, on_page)
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}">{rest.strip()}'


def _shortened(element: str) -> str:
    """The same picture in fewer letters: a matrix over a long stream has thousands of cells, but 256 colours."""
    element = re.sub(r"<[^>]+>", lambda tag: CELL.sub(r"M\1 \2H\3V\4H\1z", FINE.sub("", tag[0])), element)
    return CELLS.sub(lambda cells: _by_look(cells[0]), element)


def _by_look(paths: str) -> str:
    looks: dict[str, list[str]] = {}
    for shape, look in PATH.findall(paths):
        looks.setdefault(look, []).append(shape)
    crisp = 'shape-rendering="crispEdges"'  # else the ground shines through between neighbours
    return "".join(f'<path d="{"".join(shapes)}" {crisp} {look}/>' for look, shapes in looks.items())
