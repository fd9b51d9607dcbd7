"""Diagrams: blocks of `graph LR` as SVG, laid out and drawn when the site is built.

A subset of Mermaid, the one that docs/schemes uses: nodes `name`, `name["text"]`, `name(("text"))` and `name[("text")]`,
several of them joined by `&`, and arrows `-->`, `-.->` and `==>` with an optional `|label|`.

Layers from left to right: an arrow leads at least one layer further, unless it closes a circle. A labeled or long arrow passes
through boxes of its own, invisible or with its label, so that nothing overlaps. The order within a layer is the one with the
fewest crossings that exchanges of neighbors find.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from dataclasses import dataclass, field
from html import escape
from typing import Any

#: Widths and heights in pixels: of a letter, of a line of text, between layers, between boxes of a layer, around a text.
LETTER, LINE, GAP, BETWEEN, PAD = 7.2, 18, 34, 16, 10
WIDEST = 26  # letters in a line


@dataclass
class Box:
    """A node, the label of an arrow, or the point where an arrow crosses a layer."""

    name: str
    text: str = ""
    shape: str = "point"
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    column: tuple[float, float] = (0.0, 0.0)  # from left to right
    lines: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        longest = max((len(line) for line in self.lines), default=0)
        return {"point": 0.0, "label": longest * LETTER + 6}.get(self.shape, longest * LETTER + 2 * PAD)

    @property
    def height(self) -> float:
        return {"point": 0.0, "label": len(self.lines) * LINE}.get(self.shape, len(self.lines) * LINE + 2 * PAD)


@dataclass
class Arrow:
    """An arrow: its ends, kind (`-->`, `-.->`, `==>`), label, and the boxes that it passes."""

    start: str
    end: str
    kind: str
    label: str
    path: list[Box] = field(default_factory=list)
    backward: bool = False


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """The formatter of `mermaid` blocks."""
    return f'<div class="{css_class}">{svg(source)}</div>'


def parse(source: str) -> tuple[dict[str, Box], list[Arrow]]:
    """Nodes and arrows of a diagram.

    Raises:
        ValueError: a line that is not of the subset.
    """
    boxes: dict[str, Box] = {}
    arrows: list[Arrow] = []

    def node(text: str) -> str:
        found = re.fullmatch(r'(\w+)(?:(\[\(|\(\(|\[)"?(.*?)"?(?:\)\]|\)\)|\]))?', text.strip())
        if not found:
            raise ValueError(f"diagram: '{text}' is not a node")
        name, bracket, words = found.groups()
        box = boxes.setdefault(name, Box(name, name, "box"))
        if bracket:
            box.text, box.shape = words, {"[": "box", "((": "round", "[(": "store"}[bracket]
        return name

    lines = [line.strip() for line in source.strip().splitlines()]
    if lines[0] != "graph LR":
        raise ValueError(f"diagram: starts with '{lines[0]}', not with 'graph LR'")
    for line in filter(None, lines[1:]):
        found = re.fullmatch(r'(.+?) (-->|-\.->|==>)(?:\|"?(.*?)"?\|)? (.+)', line)
        if not found:
            node(line)
            continue
        left, kind, label, right = found.groups()
        for one, other in itertools.product(left.split(" & "), right.split(" & ")):
            arrows.append(Arrow(node(one), node(other), kind, label or ""))
    return boxes, arrows


def layers_of(boxes: dict[str, Box], arrows: list[Arrow]) -> list[list[Box]]:
    """Places every box in a layer, and cuts arrows into pieces of one layer each."""
    after: dict[str, list[str]] = {name: [] for name in boxes}
    state: dict[str, int] = {}
    for arrow in arrows:
        after[arrow.start].append(arrow.end)
    circles: set[tuple[str, str]] = set()

    def visit(name: str) -> None:
        state[name] = 1
        for end in after[name]:
            if state.get(end) == 1:
                circles.add((name, end))
            elif end not in state:
                visit(end)
        state[name] = 2

    for name in boxes:
        if name not in state:
            visit(name)
    for arrow in arrows:
        if (arrow.start, arrow.end) in circles:
            arrow.start, arrow.end, arrow.backward = arrow.end, arrow.start, True
    moved = True
    while moved:  # a labeled arrow takes two layers, one of them for its label
        moved = False
        for arrow in arrows:
            least = boxes[arrow.start].layer + (2 if arrow.label else 1)
            if boxes[arrow.end].layer < least:
                boxes[arrow.end].layer, moved = least, True
    for name in boxes:  # what only starts arrows stands as near to them as possible
        ends = [boxes[a.end].layer - (2 if a.label else 1) for a in arrows if a.start == name]
        if ends and not any(a.end == name for a in arrows):
            boxes[name].layer = min(ends)
    every = list(boxes.values())
    for number, arrow in enumerate(arrows):
        first, last = boxes[arrow.start], boxes[arrow.end]
        label_at = first.layer + (last.layer - first.layer) // 2
        arrow.path = [first]
        for layer in range(first.layer + 1, last.layer):
            here = Box(f"{number}/{layer}", arrow.label if layer == label_at else "", layer=layer)
            here.shape = "label" if here.text else "point"
            arrow.path.append(here)
            every.append(here)
        arrow.path.append(last)
    for box in every:
        parts = re.split(r"(?<=,) ", box.text) if box.shape == "label" else [box.text]
        box.lines = [line for part in parts for line in textwrap.wrap(part, WIDEST)] if box.text else []
    used = sorted({box.layer for box in every})
    return [[box for box in every if box.layer == layer] for layer in used]


def crossings(layers: list[list[Box]], pieces: list[list[tuple[str, str]]]) -> int:
    """The number of pairs of arrow pieces that cross."""
    count = 0
    for layer, following, between in zip(layers, layers[1:], pieces, strict=False):
        at = {box.name: i for i, box in enumerate(layer)}, {box.name: i for i, box in enumerate(following)}
        ends = [(at[0][one], at[1][other]) for one, other in between]
        count += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return count


def ordered(layers: list[list[Box]], arrows: list[Arrow]) -> list[list[Box]]:
    """Orders each layer: by the mean position of neighbors, then by exchanging neighbors while crossings fall."""
    layer_of = {box.name: i for i, layer in enumerate(layers) for box in layer}
    pieces: list[list[tuple[str, str]]] = [[] for _ in layers]
    near: dict[str, list[str]] = {name: [] for name in layer_of}
    for arrow in arrows:
        for one, other in itertools.pairwise(arrow.path):
            pieces[layer_of[one.name]].append((one.name, other.name))
            near[one.name].append(other.name)
            near[other.name].append(one.name)
    best, fewest = [list(layer) for layer in layers], crossings(layers, pieces)
    now = [list(layer) for layer in layers]
    for turn in range(12):
        for i in range(len(now)) if turn % 2 == 0 else reversed(range(len(now))):
            place = {box.name: j / max(len(layer) - 1, 1) for layer in now for j, box in enumerate(layer)}
            side = i - 1 if turn % 2 == 0 else i + 1
            def mean(box: Box, side: int = side, place: dict[str, float] = place) -> float:
                found = [place[n] for n in near[box.name] if layer_of[n] == side]
                return sum(found) / len(found) if found else place[box.name]
            now[i].sort(key=mean)
        improved = True
        while improved:
            improved = False
            for layer, j in [(each, j) for each in now for j in range(len(each) - 1)]:
                before = crossings(now, pieces)
                layer[j], layer[j + 1] = layer[j + 1], layer[j]
                if crossings(now, pieces) < before:
                    improved = True
                else:
                    layer[j], layer[j + 1] = layer[j + 1], layer[j]
        found = crossings(now, pieces)
        if found < fewest:
            best, fewest = [list(layer) for layer in now], found
    return best


def placed(layers: list[list[Box]], arrows: list[Arrow]) -> tuple[float, float]:
    """Sets the center of every box; returns the size of the whole."""
    left = 0.0
    for layer in layers:
        wide = max(box.width for box in layer)
        for box in layer:
            box.x, box.column = left + wide / 2, (left, left + wide)
        left += wide + GAP
    near: dict[str, list[Box]] = {box.name: [] for layer in layers for box in layer}
    for arrow in arrows:
        for one, other in itertools.pairwise(arrow.path):
            near[one.name].append(other)
            near[other.name].append(one)
    for layer in layers:
        y = 0.0
        for box in layer:
            box.y = y + box.height / 2
            y += box.height + BETWEEN
    for turn in range(60):
        for layer in layers if turn % 2 == 0 else layers[::-1]:
            wanted = [sum(n.y for n in near[b.name]) / len(near[b.name]) if near[b.name] else b.y for b in layer]
            apart(layer, wanted)
    top = min(box.y - box.height / 2 for layer in layers for box in layer)
    for layer in layers:
        for box in layer:
            box.y -= top
    return left - GAP, max(box.y + box.height / 2 for layer in layers for box in layer)


def apart(layer: list[Box], wanted: list[float]) -> None:
    """Moves the boxes of a layer towards the wanted centers, in order and without overlap; those that touch move as one."""
    blocks: list[tuple[float, int, list[float]]] = []  # sum of (wanted - offset), number, offsets
    for i, want in enumerate(wanted):
        block = (want, 1, [0.0])
        while blocks:
            total, number, offsets = blocks[-1]
            last = layer[i - block[1]] if block[1] > 1 else layer[i - 1]
            step = offsets[-1] + (last.height + layer[i - block[1] + 1].height) / 2 + BETWEEN
            if total / number + step <= block[0] / block[1]:
                break
            blocks.pop()
            block = (total + block[0] - block[1] * step, number + block[1], offsets + [step + o for o in block[2]])
        blocks.append(block)
    centers = [total / number + offset for total, number, offsets in blocks for offset in offsets]
    for box, center in zip(layer, centers, strict=True):
        box.y = center


def svg(source: str) -> str:
    """A diagram as SVG; colors are those of the page."""
    boxes, arrows = parse(source)
    layers = ordered(layers_of(boxes, arrows), arrows)
    wide, high = placed(layers, arrows)
    drawn = [curve(arrow) for arrow in arrows] + [shape(box) for layer in layers for box in layer]
    words = "; ".join(f"{boxes[a.end if a.backward else a.start].text} to {boxes[a.start if a.backward else a.end].text}"
                      + (f" ({a.label})" if a.label else "") for a in arrows)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 {wide + 8:.0f} {high + 8:.0f}" width="{wide + 8:.0f}" '
            f'style="min-width: {0.72 * wide:.0f}px" role="img" aria-label="{escape(words)}">{"".join(drawn)}</svg>')


def curve(arrow: Arrow) -> str:
    """An arrow through the boxes of its path: level inside the column of a layer, bent between columns."""
    path = arrow.path
    start, end = (path[0].x + path[0].width / 2, path[0].y), (path[-1].x - path[-1].width / 2, path[-1].y)
    d = f"M{start[0]:.1f} {start[1]:.1f} H{path[0].column[1]:.1f}"
    for before, box in itertools.pairwise(path):
        to = box.column[0]
        bend = (before.column[1] + to) / 2
        d += f" C{bend:.1f} {before.y:.1f} {bend:.1f} {box.y:.1f} {to:.1f} {box.y:.1f} H{box.x - box.width / 2:.1f}"
        if box is not path[-1]:
            d += f" M{box.x + box.width / 2:.1f} {box.y:.1f} H{box.column[1]:.1f}"
    kind = {"-->": "", "-.->": " dotted", "==>": " double"}[arrow.kind]
    (tip_x, tip_y), turn = (start, 1) if arrow.backward else (end, -1)
    tip = f"{tip_x:.1f},{tip_y:.1f} {tip_x + turn * 9:.1f},{tip_y - 4.5:.1f} {tip_x + turn * 9:.1f},{tip_y + 4.5:.1f}"
    return f'<path class="arrow{kind}" d="{d}"/><polygon class="tip" points="{tip}"/>'


def shape(box: Box) -> str:
    """A box with its text."""
    if box.shape == "point":
        return ""
    left, top = box.x - box.width / 2, box.y - box.height / 2
    first = box.y - (len(box.lines) - 1) * LINE / 2
    text = "".join(f'<text x="{box.x:.1f}" y="{first + i * LINE:.1f}">{escape(line)}</text>'
                   for i, line in enumerate(box.lines))
    if box.shape == "label":
        return f'<g class="label">{text}</g>'
    corner = {"box": 4, "round": box.height / 2, "store": 12}[box.shape]
    outline = f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{corner:.1f}"/>'
    return f'<g class="{box.shape}">{outline}{text}</g>'
