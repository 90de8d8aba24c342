"""One reward, 1,000 texts, seven ways to score them: direct, single, vector and SB3 environment, TRL, verifiers, command line."""

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stable_baselines3.common.vec_env import VecEnv

import textgym
from textgym.cli.main import cli
from textgym.envs.env import TextEnv
from textgym.envs.vector_env import TextVectorEnv
from textgym.interop import trl, verifiers
from textgym.sb3 import make_vec_env
from textgym.tokenization import load_vocabulary

PROMPT, N = "Anna said", 1000


@pytest.fixture(scope="module")
def continuations() -> dict[str, list[int]]:
    """Return 1,000 continuations cut from reviews, with tokens that decode to exactly them, the end-of-text token last."""
    vocabulary = load_vocabulary("reviews")
    prompts = textgym.make_task("ReviewContinuation").split("train")
    texts = list(dict.fromkeys(" " + p.references[0].removeprefix(p.text).strip() for p in prompts))
    start = vocabulary.encode([PROMPT])[0]
    found: dict[str, list[int]] = {}
    for text, ids in zip(texts, vocabulary.encode([PROMPT + text for text in texts]), strict=True):
        tokens = ids[len(start) :]
        if ids[: len(start)] == start and len(tokens) < 60 and vocabulary.decode_continuations([start], [tokens]) == [text]:
            found[text] = [*tokens, min(vocabulary.eos_ids)]
        if len(found) == N:
            return found
    raise AssertionError(f"only {len(found)} texts")


def through_single_env(task: textgym.Task, continuations: dict[str, list[int]]) -> dict[str, float]:
    env, scores = TextEnv(task), {}
    for tokens in continuations.values():
        env.reset(seed=0)
        for token in tokens:
            _, reward, terminated, _, info = env.step(token)
        assert terminated
        scores[info["continuation"]] = reward
    return scores


def through_vector_env(task: textgym.Task, continuations: dict[str, list[int]]) -> dict[str, float]:
    envs, scores = TextVectorEnv(task, num_envs=50, autoreset_mode="SameStep"), {}
    envs.reset(seed=0)
    for actions in queues(continuations, 50):
        _, rewards, terminated, _, infos = envs.step(actions)
        for row in np.flatnonzero(terminated):
            scores[infos["final_info"]["continuation"][row]] = float(rewards[row])
    return scores


def through_sb3_env(task: textgym.Task, continuations: dict[str, list[int]]) -> dict[str, float]:
    """Return the scores that stable-baselines3 sees; its rewards are float32, so each is checked against the term that it rounds."""
    envs: VecEnv = make_vec_env(task, n_envs=50, seed=0)
    envs.reset()
    scores = {}
    for actions in queues(continuations, 50):
        _, rewards, dones, infos = envs.step(actions)
        for row in np.flatnonzero(dones):
            (score,) = infos[row]["reward_terms"].values()
            assert rewards[row] == np.float32(score)
            scores[infos[row]["continuation"]] = score
    return scores


def queues(continuations: dict[str, list[int]], n_rows: int):
    """Yield the actions of a batch whose rows write one text after another, until all are written."""
    waiting = [list(tokens) for tokens in continuations.values()]
    rows = [waiting.pop() for _ in range(n_rows)]
    n_left = len(continuations)
    while n_left > 0:
        actions = np.array([row[0] for row in rows])
        yield actions
        for i, row in enumerate(rows):
            del row[0]
            if not row:
                n_left -= 1
                rows[i] = waiting.pop() if waiting else [2] * 1000  # the others' texts are still being written
    assert not waiting


def through_verifiers(name: str, texts: list[str]) -> dict[str, float]:
    vf = pytest.importorskip("verifiers.v1")

    class Review(vf.Task[vf.TaskData]):
        quality = verifiers.reward_function(name)

    async def score_all() -> dict[str, float]:
        scores = {}
        for text in texts:
            task = Review(vf.TaskData(prompt=PROMPT))
            said = vf.MessageNode(parent=0, message=vf.AssistantMessage(content=text), sampled=True)
            nodes = [vf.MessageNode(message=vf.UserMessage(content=PROMPT)), said]
            trace = vf.Trace(task=vf.TraceTask(type="Review", data=task.data), agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes)
            await task.score(trace)
            assert list(trace.rewards) == [name]
            scores[text] = trace.reward
        return scores

    return asyncio.run(score_all())


def through_command_line(name: str, texts: list[str], folder: Path) -> dict[str, float]:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"prompt": PROMPT, "continuation": text}) + "\n" for text in texts))
    result = CliRunner().invoke(cli, ["reward", "score", name, str(file), "--json"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["continuation"]: row["score"] for row in rows}


@pytest.mark.parametrize("name", ["human-rating", "vader", "repetition", "distinct-n", "self-bleu", "profanity", "readability"])
def test_a_reward_gives_the_same_score_whichever_way_it_is_called(name: str, continuations: dict[str, list[int]], tmp_path: Path) -> None:
    texts = list(continuations)
    task = textgym.Task("Said-v0", {"train": [PROMPT]}, "reviews", 60, name)
    reward = textgym.make_reward(name)
    direct = dict(zip(texts, reward.score([textgym.Episode(PROMPT, text) for text in texts]).tolist(), strict=True))
    assert len(direct) == N
    assert len(set(direct.values())) > 5  # few texts swear
    ways = {
        "one at a time": {text: float(reward.score([textgym.Episode(PROMPT, text)])[0]) for text in texts},
        "single": through_single_env(task, continuations),
        "vector": through_vector_env(task, continuations),
        "sb3": through_sb3_env(task, continuations),
        "trl": dict(zip(texts, trl.reward_function(name)([PROMPT] * N, texts), strict=True)),
        "verifiers": through_verifiers(name, texts),
        "command line": through_command_line(name, texts, tmp_path),
    }
    for way, scores in ways.items():
        assert set(scores) >= set(direct), way
        differing = [text for text in texts if not math.isclose(scores[text], direct[text], rel_tol=0, abs_tol=0)]
        assert not differing, (way, differing[0], scores[differing[0]], direct[differing[0]])
