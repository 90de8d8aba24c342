"""Budget: how much of what - tokens, texts scored, seconds - a run may spend on learning."""

from dataclasses import dataclass
from difflib import get_close_matches

from textgym.agent import Agent
from textgym.errors import InvalidArgumentError

UNITS = {
    "tokens": "tokens",  # generated ones, or read ones for an agent that learns from given texts
    "tokens-trained": "tokens trained on",
    "texts-scored": "texts scored",
    "seconds": "seconds of learning",
}
PATIENCE = 200  # iterations in a row that may spend nothing: a replay is filled before the first gradient


@dataclass(frozen=True)
class Budget:
    """What a run may spend.

    Attributes:
        kind: "tokens", "tokens-trained", "texts-scored" or "seconds"; see `textgym.agent.Costs`.
        amount: How many; at least 1 (seconds: above 0).
    """

    kind: str
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in UNITS:
            near = get_close_matches(self.kind, UNITS, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise InvalidArgumentError(f"a budget is one of {', '.join(UNITS)}, got {self.kind!r}{hint}")
        if not (0 if self.kind == "seconds" else 1) <= self.amount < float("inf") or self.amount <= 0:
            raise InvalidArgumentError(
                f"a budget of {self.kind} must be {'above 0' if self.kind == 'seconds' else 'at least 1'}, got {self.amount:g}"
            )

    def spent(self, agent: Agent) -> float:
        """Return how much of it an agent has spent so far."""
        if self.kind == "tokens":
            return agent.n_tokens
        if self.kind == "seconds":
            return agent.learning_seconds
        return agent.costs.tokens_trained if self.kind == "tokens-trained" else agent.costs.texts_scored

    @property
    def unit(self) -> str:
        """Its unit in words."""
        return UNITS[self.kind]

    def __str__(self) -> str:
        return f"{self.amount:,.12g} {self.unit}"


def read_budget(text: str) -> Budget:
    """Return the budget that a text "tokens-trained=50000" says."""
    kind, equals, amount = text.partition("=")
    try:
        number = float(amount.replace("_", ""))
    except ValueError:
        number = float("nan")
    if not equals or number != number:
        raise InvalidArgumentError(f"a budget is written KIND=AMOUNT, such as tokens-trained=50000 or seconds=60, got {text!r}")
    return Budget(kind.strip(), number)
