"""GivenDataAgent: the state of agents that learn from given items, texts or pairs, dealt out in shuffled rounds."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from textgym.learning.given_texts import Rounds
from textgym.learning.text_agent import TextAgent


class GivenDataAgent(TextAgent):
    """An agent whose constructor finds its items and gives them `rounds`; which of them are still to come is saved with it.

    Attributes:
        rounds: Deals the items out.
    """

    rounds: Rounds

    def state(self) -> dict[str, Any]:
        """Return the state with the items still to come in this round."""
        return {**super().state(), "order": self.rounds.order}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        super().load_state(state, arrays)
        self.rounds.order = list(state["order"])
