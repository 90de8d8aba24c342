"""Given texts: shipped sets and files as data of offline agents, their rewards, pairs, and what goes wrong."""

import json
from collections import Counter

import numpy as np
import pytest
from textgym_plugins.offline_texts import SETS, offline_texts

import textgym
from textgym.learning.given_texts import Rounds, given_pairs, given_texts, reference_texts
from textgym.tasks import make_task


def environment(task="CopyToken", **settings):
    return textgym.make_agent("base", task, device="cpu", n_envs=4, **settings).env.mdp


def file_of(rows, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", SETS)
def test_a_shipped_set_is_its_tasks_and_says_what_the_environment_would(name):
    found, task = offline_texts(name), make_task(SETS[name])
    assert task.offline == name
    prompts = {p if isinstance(p, str) else p.text for p in task.prompts["train"]}
    assert {item.prompt for item in found.items} <= prompts
    assert {item.source for item in found.items} <= {"reference", "base", "random"}
    mdp = environment(SETS[name])
    texts = given_texts(mdp, "offline")
    assert len(texts) == len(found)
    again = given_texts(environment(SETS[name], reward={mdp.reward.name: 2.0}), "offline")  # another reward: all are scored anew
    np.testing.assert_allclose([t.rewards.sum() for t in again], [2 * t.rewards.sum() for t in texts], atol=2e-4)
    assert mdp.n_steps == mdp.n_scored == 0


def test_where_the_rewards_come_from(tmp_path):
    rows = [{"prompt": "a b", "text": " b", "rating": 0.25}, {"prompt": "a c", "text": " b", "rating": 5, "metadata": {"reward": "copied"}}]
    own = given_texts(environment(), file_of(rows, tmp_path / "own.jsonl"))
    assert [t.rewards.tolist() for t in own] == [[0.25], [5.0]]
    other = given_texts(environment(reward=lambda episodes: [7.0] * len(episodes)), tmp_path / "own.jsonl")
    assert [t.rewards.tolist() for t in other] == [[0.25], [7.0]]
    unrated = [{"prompt": r["prompt"], "text": r["text"]} for r in rows]
    scored = given_texts(environment(), file_of(unrated, tmp_path / "texts.jsonl"))
    assert [t.rewards.tolist() for t in scored] == [[1.0], [0.0]]
    assert all(np.isnan(t.log_probs).all() for t in scored)


def test_prompts_of_ones_own_splits_ends_and_budgets(tmp_path):
    rows = [
        {"prompt": "The plumber", "text": " came late.", "rating": 1},
        {"prompt": "The plumber", "text": " came early and did everything I had asked for.", "rating": 3, "split": "train"},
        {"prompt": "The movie", "text": " held out.", "rating": 2, "split": "test"},
    ]
    mdp = environment("ReviewContinuation", max_new_tokens=5)
    short, cut = given_texts(mdp, file_of(rows, tmp_path / "own.jsonl"))
    assert short.action_ids[-1] in mdp.vocabulary.eos_ids
    assert short.info["finish_reason"] == "stop"
    assert len(cut.action_ids) == 5
    assert cut.info["finish_reason"] == "length"
    chain = environment("TokenChain")
    (empty,) = given_texts(chain, file_of([{"prompt": "a b", "text": " <eos>", "rating": 0.3}], tmp_path / "empty.jsonl"))
    assert empty.action_ids.tolist() == [min(chain.vocabulary.eos_ids)]
    assert empty.rewards.tolist() == [0.3]


def test_pairs_are_best_with_worst(tmp_path):
    rows = [{"prompt": "a b", "text": f" {s}", "rating": r} for s, r in zip("abcde", (3, 1, 2, 2, 5), strict=True)]
    pairs = given_pairs(environment(), file_of([*rows, {"prompt": "c d", "text": " a", "rating": 9}], tmp_path / "rated.jsonl"))
    assert [(c.info["continuation"].strip(), r.info["continuation"].strip()) for c, r in pairs] == [("e", "b"), ("a", "d")]
    preferred = [
        {"prompt": "a b", "chosen": " b", "rejected": " a", "tie": False},
        {"prompt": "a b", "chosen": " c", "rejected": " d", "tie": True},
    ]
    ((chosen, rejected),) = given_pairs(environment(), file_of(preferred, tmp_path / "pairs.jsonl"))
    assert (chosen.info["continuation"].strip(), rejected.info["continuation"].strip()) == ("b", "a")
    assert len(given_pairs(environment(), "offline")) > 64


def test_rounds_deal_everything_once():
    rounds, rng = Rounds(10), np.random.default_rng(0)
    dealt = [i for _ in range(5) for i in rounds.deal(2, rng)]
    assert Counter(dealt) == Counter(range(10))
    assert sorted(rounds.deal(99, rng)) == list(range(10))


def test_offline_agents_generate_nothing_and_ask_no_reward():
    for name in ("bc", "ilql", "dpo"):
        agent = textgym.make_agent(name, "CopyToken", device="cpu", n_envs=8, data="offline")
        agent.learn(32)
        assert agent.costs.tokens_generated == agent.costs.texts_scored == 0
        assert agent.costs.tokens_trained >= agent.n_tokens >= 32


def test_the_reward_is_asked_about_the_texts_that_are_kept_and_that_is_counted():
    asked = []

    def reward(episodes):
        asked.extend(e.continuation for e in episodes)
        return [float(len(e.continuation)) for e in episodes]

    agent = textgym.make_agent("bc", "ReviewContinuation", reward=reward, device="cpu", n_envs=8, share=0.25)
    n_references = sum(len(p.references) for p in agent.env.mdp.prompt_set.prompts)
    assert 0 < agent.costs.texts_scored == len(asked) < n_references / 2, "most references have words that the bundled model cannot write"
    assert agent.costs.tokens_generated == 0
    assert len(agent.texts) >= len(asked) / 4


def test_best_of_n_says_what_it_asks_for_each_text():
    agent = textgym.make_agent("best-of-n", "CopyToken", device="cpu", n=3)
    assert agent.scored_per_text == 3
    before = agent.costs
    mdp = environment()
    agent.write(mdp, range(4), np.random.default_rng(0))
    assert mdp.n_scored == 4 * agent.scored_per_text
    assert agent.costs == before, "writing is no cost of learning"
    assert textgym.make_agent("ppo", "CopyToken", device="cpu").scored_per_text == 0


def test_bad_data_is_one_line(tmp_path):
    def says(message, data, task="CopyToken", of=given_texts):
        with pytest.raises(textgym.InvalidArgumentError, match=message):
            of(environment(task), data)

    says("has no prompt", file_of([{"text": "a b"}], tmp_path / "bare.jsonl"))
    says("holds pairs: this agent learns from ratings", file_of([{"chosen": "a", "rejected": "b"}], tmp_path / "pairs.jsonl"))
    says("has no texts of the split 'train'", file_of([{"prompt": "a b", "text": " b", "split": "test"}], tmp_path / "held.jsonl"))
    says("allows none of its 1 texts", file_of([{"prompt": "a b", "text": " h"}], tmp_path / "h.jsonl"), "TokenChain")
    says("nothing to pair", "references", of=given_pairs)
    says("did you mean 'copy-token-offline'", "copy-token-ofline")
    bare = textgym.Task("Bare-v0", {"train": ["a b"]}, "copy-token", 1, "copied")
    says("task 'Bare-v0' ships no offline data: pass data='references'", "offline", bare)
    says("no references in its split", "references", bare)
    assert reference_texts(environment())
