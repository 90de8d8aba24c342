"""Generation: whole texts written by a policy through the transition core, each with its tokens, log-probabilities and rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.mdp import TokenMDP
from textgym.policies.causal_lm_policy import CausalLMPolicy

Choice: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class GeneratedText:
    """One text as the policy wrote it.

    Attributes:
        prompt_ids: (prompt length,) int64.
        action_ids: (T,) int64, EOS included if chosen.
        log_probs: (T,) float32, natural log-probabilities under the policy's sampling rule; nan for a text that no policy of ours wrote.
        rewards: (T,) float64.
        info: The environment's info at the end: prompt, continuation, finish_reason, reward_terms.
    """

    prompt_ids: NDArray[np.int64]
    action_ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    rewards: NDArray[np.float64]
    info: dict[str, Any]


def generate(
    policy: CausalLMPolicy, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None = None
) -> list[GeneratedText]:
    """Write one text for each prompt.

    The random numbers of a text depend on `rng` and its place in `prompt_indices` alone, so that two policies given equal generators
    are compared on common random numbers, whatever the number of rows.

    Args:
        policy: Writes.
        mdp: Its rows are used as the batch; its split holds the prompts.
        prompt_indices: Which prompts, in order.
        rng: Draws the tokens; None takes the most probable ones.
    """
    policy.set_training_mode(False)
    uniform = None if rng is None else rng.random((len(prompt_indices), mdp.max_new_tokens), dtype=np.float32)
    texts: list[GeneratedText] = []
    for start in range(0, len(prompt_indices), mdp.n_rows):
        part = list(prompt_indices[start : start + mdp.n_rows])
        drawn = None if uniform is None else uniform[start : start + len(part)]

        def choose(step: int, drawn: NDArray[np.float32] | None = drawn, n: int = len(part)) -> Choice:
            # rows that ended stay in the batch: the cache keeps its shape, and their tokens are ignored
            obs = {key: values[:n] for key, values in mdp.observe().items()}
            return policy.sample(obs, None if drawn is None else drawn[:, step])

        texts += write_rows(mdp, part, choose)
    policy.clear_cache()  # frees memory, and what follows does not depend on what was written here, to the last bit
    return texts


def replay(mdp: TokenMDP, prompt_indices: Sequence[int], continuations: Sequence[str]) -> list[GeneratedText]:
    """Take texts written elsewhere through the transition core, as if a policy had chosen their tokens: same budget, same ends, same reward.

    A continuation that is longer than the budget is cut there; one that is shorter ends with EOS. Tokens that the task does not allow are
    left out.

    Args:
        mdp: Its rows are used as the batch; its split holds the prompts.
        prompt_indices: Which prompts, in order.
        continuations: The text that follows each.
    """
    vocabulary, end = mdp.vocabulary, min(mdp.vocabulary.eos_ids)
    planned = []
    for index, continuation in zip(prompt_indices, continuations, strict=True):
        prompt, prompt_ids = mdp.prompt_set.prompts[index].text, mdp.prompt_set.ids[index]
        (ids,) = vocabulary.encode([prompt + continuation])
        if ids[: len(prompt_ids)] == prompt_ids:
            ids = ids[len(prompt_ids) :]
        else:  # the border falls inside a token, or the prompt ends with a special one
            ids = vocabulary.tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
        chosen = [i for i in ids if mdp.allowed_mask[i] and i not in vocabulary.eos_ids]
        planned.append([*chosen, *[end] * mdp.max_new_tokens][: mdp.max_new_tokens])
    actions = np.array(planned, np.int64).reshape(len(planned), mdp.max_new_tokens)
    texts: list[GeneratedText] = []
    for start in range(0, len(prompt_indices), mdp.n_rows):
        part = actions[start : start + mdp.n_rows]
        unknown = np.full(len(part), np.nan, np.float32)
        prompts = list(prompt_indices[start : start + len(part)])
        texts += write_rows(mdp, prompts, lambda step, part=part, unknown=unknown: (part[:, step], unknown))  # type: ignore[misc]
    return texts


def write_rows(mdp: TokenMDP, prompts: list[int], choose: Callable[[int], Choice]) -> list[GeneratedText]:
    """Write one text per prompt, side by side; `choose(step)` returns tokens and log-probabilities, (len(prompts),) each."""
    rows = np.arange(len(prompts))
    mdp.reset(rows, prompts)
    prompt_ids = [np.array(mdp.prompt_set.ids[i], np.int64) for i in prompts]
    actions = np.zeros((mdp.max_new_tokens, mdp.n_rows), np.int64)
    log_probs = np.zeros((mdp.max_new_tokens, len(prompts)), np.float32)
    rewards = np.zeros((mdp.max_new_tokens, len(prompts)))
    lengths = np.zeros(len(prompts), np.int64)
    infos: dict[int, dict[str, Any]] = {}
    for step in range(mdp.max_new_tokens):
        live = np.flatnonzero(lengths == 0)
        if not live.size:
            break
        actions[step, : len(prompts)], log_probs[step] = choose(step)
        transition = mdp.step(actions[step], live)
        rewards[step] = transition.rewards[: len(prompts)]
        infos.update(transition.infos)
        lengths[transition.terminated[: len(prompts)]] = step + 1
    return [
        GeneratedText(prompt_ids[i], actions[: lengths[i], i].copy(), log_probs[: lengths[i], i], rewards[: lengths[i], i], infos[i])
        for i in range(len(prompts))
    ]
