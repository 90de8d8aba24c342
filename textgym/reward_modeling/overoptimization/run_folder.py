"""RunFolder: where the pieces of an over-optimisation run lie; what lies there is not computed again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textgym.errors import RunDirectoryError
from textgym.files import write_text
from textgym.reward_modeling.overoptimization.config import OveroptimizationConfig

CONFIG = "config.json"


class RunFolder:
    """The folder of a run.

    Args:
        path: Made where it is missing.
        config: The run's.

    Raises:
        RunDirectoryError: It holds another run, or cannot be written.
    """

    def __init__(self, path: Path, config: OveroptimizationConfig) -> None:
        self.path = path
        described = json.loads(json.dumps(asdict(config)))
        try:
            for name in ("samples", "scores", "rl"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error
        file = path / CONFIG
        if not file.exists():
            write_text(file, json.dumps(described, indent=2) + "\n")
        elif read(file) != described:
            raise RunDirectoryError(f"{path} holds a run with other settings; choose another folder or delete it")

    @property
    def gold(self) -> Path:
        """The gold model."""
        return self.path / "gold"

    @property
    def gold_figures(self) -> Path:
        """How good it is: "pearson", on its validation texts."""
        return self.path / "gold.json"

    def proxy(self, size: int, seed: int, member: int) -> Path:
        """A proxy; member 0 is the single proxy of a draw, the others are its bootstraps."""
        return self.path / "proxies" / f"{size}-{seed}-{member}"

    def samples(self, seed: int) -> Path:
        """Prompt and continuation of every sample of a seed, prompt by prompt."""
        return self.path / "samples" / f"{seed}.json"

    def scores(self, seed: int) -> Path:
        """What the gold model ("gold") and each proxy of the seed (by its folder's name) say of these samples."""
        return self.path / "scores" / f"{seed}.json"

    def training(self, size: int, how: str, seed: int) -> Path:
        """The measurements of one RL run."""
        return self.path / "rl" / f"{size}-{how}-{seed}.json"


def read(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
