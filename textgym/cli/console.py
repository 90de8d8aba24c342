"""The console of tables and coloured text."""

import os
import sys
from typing import Any


def console() -> Any:
    """Return a `rich.console.Console` on standard output; a file or a pipe has no width: long lines there rather than broken ones."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 240)
