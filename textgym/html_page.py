"""HTML pages that stand alone: one style, pictures inside."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textgym.files import write_text

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")  # Okabe and Ito: told apart by colour-blind readers
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid #ddd;text-align:right;vertical-align:top}th:first-child,td:first-child{text-align:left}
.texts td,.texts th{text-align:left;width:25%}.prompt{color:#777}.score{display:block;color:#777;font-size:.8rem}img{max-width:100%}
.matrix{font-size:.75rem}.matrix td,.matrix th{padding:.25rem .3rem}.better{background:#cfe3f2}.worse{background:#f8dcc8}
.wide{overflow-x:auto}.note{color:#555;font-size:.9rem}li{margin:.2rem 0}
"""


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page of `parts`, HTML each, atomically."""
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    write_text(path, f"<!doctype html><html lang='en'><head>{head}</head><body>" + "\n".join(parts) + "</body></html>\n")


def image(figure: Any, alternative: str) -> str:
    """Return a Matplotlib figure as an `<img>` with a text for those who do not see it."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return f"<img alt='{html.escape(alternative)}' src='data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}'>"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; titles and cells are plain text."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(title)}</th>" for title in titles) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<div class='wide'><table>" + "".join(lines) + "</table></div>"
