"""Explanations to look at: words coloured by what they add, in the terminal and as a page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.html_page import table, write_page
from textgym.reward_modeling.explanation.explanation import Explanation, Influence

UP, DOWN = (0, 158, 115), (213, 94, 0)  # green and vermilion of Okabe and Ito


def coloured(explanation: Explanation) -> Any:
    """Return the text as a `rich.text.Text`: background green where a word raises the reward, orange where it lowers it, prompt underlined."""
    from rich.text import Text

    text = Text()
    n_prompt = len(explanation.prompt_words)
    for i, (word, strength) in enumerate(zip(explanation.words, _strengths(explanation), strict=True)):
        colour = UP if strength > 0 else DOWN
        mixed = [round(255 + (c - 255) * abs(strength)) for c in colour]
        space = len(word) - len(word.lstrip())
        text.append(word[:space].replace("\n", " "))
        text.append(word[space:], style=f"{'underline ' if i < n_prompt else ''}black on rgb({mixed[0]},{mixed[1]},{mixed[2]})")
    return text


def write_explanations(
    explanations: Sequence[Explanation], path: Path, reward: str, method: str, influences: Sequence[Influence] = ()
) -> None:
    """Write a page with every text coloured, its figures, and perhaps the most influential words."""
    parts = [
        f"<h1>Why {html.escape(reward)} says so</h1>",
        f"<p class='note'>Method: {html.escape(method)}. Green words raise the reward, orange ones lower it, each text on its own scale; point at "
        "a word to see by how much. The prompt is underlined.</p>",
    ]
    for found in explanations:
        parts.append(
            f"<p>{_spans(found)}</p><p class='note'>reward {found.score:+.3f}; without words {found.baseline:+.3f}; unexplained "
            f"{found.residual:+.3f}; largest standard error {float(np.nanmax(found.standard_error)):.3f}</p>"
        )
    if influences:
        rows = [[i.word, f"{i.mean:+.3f}", str(i.count)] for i in (*influences[:20], *influences[max(20, len(influences) - 20) :])]
        parts += ["<h2>Words that move it most</h2>", table(["word", "mean effect", "occurrences"], rows)]
    write_page(path, f"textgym: why {reward} says so", parts)


def _spans(found: Explanation) -> str:
    spans = []
    for i, (word, strength) in enumerate(zip(found.words, _strengths(found), strict=True)):
        red, green, blue = UP if strength > 0 else DOWN
        line = "text-decoration:underline;" if i < len(found.prompt_words) else ""
        style = f"{line}background:rgba({red},{green},{blue},{abs(strength):.2f})"
        spans.append(f"<span style='{style}' title='{found.attributions[i]:+.3f}'>{html.escape(word)}</span>")
    return "".join(spans)


def _strengths(found: Explanation) -> list[float]:
    most = float(np.abs(found.attributions).max())
    values: list[float] = (found.attributions / most).tolist() if most > 0 else [0.0] * len(found.attributions)
    return values
