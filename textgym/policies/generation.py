"""Generation: whole texts written by a policy through the transition core, each with its tokens, log-probabilities and rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.errors import InvalidArgumentError
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
    """Write one text for each prompt, by continuous batching: a row whose text has ended is left out of the passes, and given to the next prompt.

    The random numbers of a text depend on `rng` and its place in `prompt_indices` alone, so that two policies given equal generators
    are compared on common random numbers, whatever the number of rows. Other rows beside it change a text's logits by rounding only.

    Args:
        policy: Writes.
        mdp: Its rows are used as the batch; its split holds the prompts.
        prompt_indices: Which prompts, in order.
        rng: Draws the tokens; None takes the most probable ones.
    """
    policy.set_training_mode(False)
    uniform = None if rng is None else rng.random((len(prompt_indices), mdp.max_new_tokens), dtype=np.float32)

    def choose(rows: NDArray[np.int64], texts: NDArray[np.int64], steps: NDArray[np.int64]) -> Choice:
        obs = {key: values[rows] for key, values in mdp.observe().items()}
        return policy.sample(obs, None if uniform is None else uniform[texts, steps])

    texts = _write(mdp, prompt_indices, choose, policy.move_cached_rows)
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
    prompts = [mdp.prompt_set.prompts[index].text for index in prompt_indices]
    encoded = vocabulary.encode([prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)])
    actions = np.full((len(prompts), mdp.max_new_tokens), end, np.int64)
    lengths = np.zeros(len(prompts), np.int64)
    for row, (index, continuation, ids) in enumerate(zip(prompt_indices, continuations, encoded, strict=True)):
        prompt_ids = mdp.prompt_set.ids[index]
        if ids[: len(prompt_ids)] == prompt_ids:
            ids = ids[len(prompt_ids) :]
        else:  # the border falls inside a token, or the prompt ends with a special one
            ids = vocabulary.tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
        chosen = [i for i in ids if mdp.allowed_mask[i] and i not in vocabulary.eos_ids][: mdp.max_new_tokens]
        actions[row, : len(chosen)] = chosen
        lengths[row] = len(chosen)
    texts: dict[int, GeneratedText] = {}
    order = np.argsort(lengths, kind="stable")  # texts of one length end together, and are scored together
    for start in range(0, len(order), mdp.n_rows):
        part = order[start : start + mdp.n_rows].tolist()
        unknown = np.full(len(part), np.nan, np.float32)
        rows = [prompt_indices[i] for i in part]
        written = write_rows(mdp, rows, lambda step, part=part, unknown=unknown: (actions[part, step], unknown))  # type: ignore[misc]
        texts.update(zip(part, written, strict=True))
    return [texts[i] for i in range(len(order))]


def write_rows(mdp: TokenMDP, prompts: list[int], choose: Callable[[int], Choice]) -> list[GeneratedText]:
    """Write one text per prompt, side by side; `choose(step)` returns tokens and log-probabilities, (len(prompts),) each."""

    def choose_together(rows: NDArray[np.int64], texts: NDArray[np.int64], steps: NDArray[np.int64]) -> Choice:
        del rows
        tokens, log_probs = choose(int(steps[0]))
        return tokens[texts], log_probs[texts]

    if len(prompts) > mdp.n_rows:
        raise InvalidArgumentError(f"{len(prompts)} texts do not go side by side into {mdp.n_rows} rows")
    return _write(mdp, prompts, choose_together, lambda *_: None)


def _write(
    mdp: TokenMDP,
    prompts: Sequence[int],
    choose: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], Choice],
    move: Callable[[NDArray[np.int64], NDArray[np.int64], int], None],
) -> list[GeneratedText]:
    """Write one text per prompt.

    Args:
        mdp: Its rows are the batch.
        prompts: Which prompts, in order.
        choose: From the rows that run, the text in each and its length so far, (m,) each, to their tokens and log-probabilities.
        move: Told when texts have ended, and the rows behind them close up: (from, to, how many are left).
    """
    n = len(prompts)
    actions = np.zeros((n, mdp.max_new_tokens), np.int64)
    log_probs = np.zeros((n, mdp.max_new_tokens), np.float32)
    rewards = np.zeros((n, mdp.max_new_tokens))
    lengths = np.zeros(n, np.int64)
    infos: dict[int, dict[str, Any]] = {}
    text_in = np.zeros(mdp.n_rows, np.int64)  # row → the text in it
    live = np.zeros(0, np.int64)  # the rows that run, as they lie in the policy's cache
    begun = 0
    while len(infos) < n:
        free = np.setdiff1d(np.arange(mdp.n_rows), live)
        # reading a prompt costs a pass, so rows are filled a quarter of the batch at a time
        if begun < n and (not live.size or free.size >= max(1, mdp.n_rows // 4)):
            rows = free[: n - begun]
            text_in[rows] = np.arange(begun, begun + len(rows))
            mdp.reset(rows, [prompts[i] for i in text_in[rows]])
            begun += len(rows)
            live = np.append(live, rows)
        texts = text_in[live]
        steps = lengths[texts]
        tokens = np.zeros(mdp.n_rows, np.int64)
        tokens[live], log_probs[texts, steps] = choose(live, texts, steps)
        transition = mdp.step(tokens, live)
        actions[texts, steps], rewards[texts, steps] = tokens[live], transition.rewards[live]
        lengths[texts] += 1
        ended = transition.terminated[live]
        if ended.any():
            infos.update({int(text_in[row]): transition.infos[row] for row in live[ended].tolist()})
            left = int((~ended).sum())
            holes, behind = np.flatnonzero(ended[:left]), left + np.flatnonzero(~ended[left:])
            live[holes] = live[behind]
            live = live[:left]
            move(behind, holes, left)
    return [
        GeneratedText(
            np.array(mdp.prompt_set.ids[prompts[i]], np.int64),
            actions[i, : lengths[i]].copy(),
            log_probs[i, : lengths[i]].copy(),
            rewards[i, : lengths[i]].copy(),
            infos[i],
        )
        for i in range(n)
    ]
