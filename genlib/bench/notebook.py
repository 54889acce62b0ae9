"""Numbers for people: ratios and durations as text, tables, and glue for a notebook's prose."""

from __future__ import annotations

import ast
import html
import math
import sys

_TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `value` with about `digits` significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def format_ratio(ratio: float, low: float, high: float) -> str:
    """Writes a ratio and the ends of its interval: `3.4× (3.1–3.8)`; two decimals near 1."""
    d = 2 if 0.8 <= ratio < 2 else _decimals(ratio, 2)
    return f"{ratio:.{d}f}× ({low:.{d}f}–{high:.{d}f})"


def format_seconds(seconds: float, low: float | None = None, high: float | None = None) -> str:
    """Writes a duration in its natural unit: `12.3 ms`, or `12.3 ms (11.9–12.8)`."""
    unit, size = next((u for u in _TIME_UNITS if abs(seconds) >= u[1]), _TIME_UNITS[-1])
    d = _decimals(seconds / size, 3)
    text = f"{seconds / size:.{d}f} {unit}"
    if low is None or high is None:
        return text
    return f"{text} ({low / size:.{d}f}–{high / size:.{d}f})"


class _Plain(str):
    """Text that a notebook shows without quotation marks, as glue needs it.

    MyST-NB reads a text that is a Python literal as one, so that 5,000 would become (5, 0). Such a
    text keeps its quotation marks, which MyST-NB then takes away.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            read = str(ast.literal_eval(str(self)))
        except (SyntaxError, ValueError):
            return str(self)
        return str(self) if read == self else super().__repr__()


def glue(name: str, text: str) -> str:
    """Stores a text in the notebook under a name, for ``{glue:text}`name` `` in the prose.

    Outside IPython, or where MyST-NB is not installed (Colab), it only returns the text.
    """
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        try:
            from myst_nb import glue as myst_glue
        except ImportError:
            return text
        myst_glue(name, _Plain(text), display=False)
    return text


def table(head: list[str], rows: list[list[str]], foot: str) -> str:
    """Writes an HTML table, of which every column but the first is aligned to the right.

    Its class, `dataframe`, is the one that notebook themes style in dark mode.

    Args:
        head: titles of the columns.
        rows: texts, as many in each row as there are titles.
        foot: a line below the table.
    """

    def line(cells: list[str], tag: str) -> str:
        style = ["", *[' style="text-align: right"'] * (len(cells) - 1)]
        pairs = zip(cells, style, strict=True)
        return "<tr>" + "".join(f"<{tag}{s}>{html.escape(c)}</{tag}>" for c, s in pairs) + "</tr>"

    return (
        '<table class="dataframe">'
        f'<caption style="caption-side: bottom">{html.escape(foot)}</caption>'
        f"<thead>{line(head, 'th')}</thead>"
        f"<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
    )
