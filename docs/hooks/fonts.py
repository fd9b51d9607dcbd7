"""The font of the equations: STIX Two Math (SIL Open Font License), as the package `ziamath` carries it, cut to its use."""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from mkdocs.exceptions import PluginError

#: Latin, Greek, general punctuation, letterlike symbols, arrows, operators, technical symbols, brackets, mathematical letters.
RANGES = ((0x20, 0x7F), (0xA0, 0x180), (0x2B0, 0x400), (0x2000, 0x2070), (0x20D0, 0x2150), (0x2190, 0x2400), (0x27E6, 0x27F0),
          (0x1D400, 0x1D800))


@cache
def math_font() -> bytes:
    """A WOFF file, with the tables of the sizes and positions of mathematics."""
    package = find_spec("ziamath")
    if package is None or package.origin is None:
        raise PluginError("the site's equations need ziamath - pip install \"modalift[docs]\"")
    font = TTFont(Path(package.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf")
    options = subset.Options(layout_features=["ssty"], hinting=False, drop_tables=["DSIG"])
    options.flavor = "woff"
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[code for first, end in RANGES for code in range(first, end)])
    cutter.subset(font)
    out = io.BytesIO()
    font.flavor = "woff"
    font.save(out)
    return out.getvalue()
