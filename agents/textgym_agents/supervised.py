"""A classifier fitted to the right labels, the supervised control of tasks with labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.errors import InvalidArgumentError
from textgym.learning.control_agent import ControlAgent
from textgym.mdp import TokenMDP
from textgym.policies.generation import GeneratedText, replay
from textgym.tasks import Prompt, Task, right_label


class SupervisedAgent(ControlAgent):
    """Logistic regression on TF-IDF of words and characters, fitted to the right labels of all training prompts; for tasks with labels.

    What an agent that learns from rewards is measured against: it is told the right answer of every prompt, and learns no language model. It
    is fitted when it first answers, the same way each time, so nothing is stored; no token budget improves it. Its answers have no
    log-probabilities, so its KL is nan, and its `policy`, the task's model, writes nothing.

    Args:
        task: As for `textgym.make_agent`; it must have `labels`.
        penalty: Weight of the squared norm against the data's loss.
        **settings: Those of `textgym.agent.Agent`.
    """

    def __init__(self, task: str | Task, penalty: float = 2.0, **settings: Any) -> None:
        super().__init__(task, **settings)
        if not self.task.labels:
            raise InvalidArgumentError(f"agent 'supervised' needs a task with labels, which {self.task.name!r} does not have")
        self.penalty = penalty
        self._scorer: Any = None

    def classify(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return the most probable label of each prompt; where the prompt's metadata has a "sentence", of that alone."""
        scorer = self._fitted()
        outputs = scorer.forward(scorer.prepare([_sentence(p) for p in prompts])).numpy()
        return [self.task.labels[k] for k in outputs.argmax(1)]

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Answer with the label; `rng` is not needed."""
        del rng
        labels = self.classify([mdp.prompt_set.prompts[i] for i in prompt_indices])
        return replay(mdp, prompt_indices, [f" {label}" for label in labels])

    def _fitted(self) -> Any:
        if self._scorer is None:
            from textgym.reward_modeling.data.judgements import LabelledText
            from textgym.reward_modeling.objectives import CrossEntropy
            from textgym.reward_modeling.scorers.tfidf import TfIdf

            prompts = self.task.split("train")
            items = [LabelledText(id=str(i), text=_sentence(p), label=right_label(p)) for i, p in enumerate(prompts)]
            self._scorer = TfIdf(len(self.task.labels), penalty=self.penalty)
            self._scorer.solve([i.text for i in items], CrossEntropy(self.task.labels), items, self.seed)
        return self._scorer


def _sentence(prompt: Prompt) -> str:
    return str(prompt.metadata.get("sentence", prompt.text))
