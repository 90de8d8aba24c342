"""How a text is shown in a terminal: the prompt dimmed, the continuation bright."""


def ansi_text(prompt: str, continuation: str) -> str:
    """Return prompt and continuation with ANSI colours, control characters made visible so that a text cannot move the cursor."""
    return f"\x1b[2m{_visible(prompt)}\x1b[0m\x1b[1m{_visible(continuation)}\x1b[0m"


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
