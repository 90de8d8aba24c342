"""GAIL: it recovers a known expert's n-grams and lengths, absorbing states being what makes lengths right; its policy loss by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import textgym
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet
from textgym.reward_modeling.data.writing import write_judgements
from textgym.tasks import Prompt, Task

SYMBOLS, END, HORIZON = "abcd", 4, 5
STOP = (0.1, 0.5, 0.2, 0.4)
FOLLOWS = np.hstack([np.random.default_rng(1).dirichlet(np.ones(4), 4) * (1 - np.array(STOP))[:, None], np.array(STOP)[:, None]])  # (4, 5)


def markov_texts(n, seed):
    """Return texts of the expert: a Markov chain over four symbols, begun with each in turn, that may end after any."""
    rng, texts = np.random.default_rng(seed), []
    for i in range(n):
        text = [i % 4]
        while len(text) <= HORIZON and (after := int(rng.choice(5, p=FOLLOWS[text[-1]]))) != END:
            text.append(after)
        texts.append(text)
    return texts


def bigrams_and_lengths(texts):
    """Return the distribution of two tokens in a row, the end being one, (4, 5), and that of the continuation's length, (HORIZON + 1,)."""
    pairs, lengths = np.zeros((4, 5)), np.zeros(HORIZON + 1)
    for text in texts:
        for a, b in pairwise([*text, *[END] * (len(text) <= HORIZON)]):
            pairs[a, b] += 1
        lengths[len(text) - 1] += 1
    return pairs / pairs.sum(), lengths / lengths.sum()


def exact():
    """Return the expert's own distributions of the two."""
    pairs, lengths, running = np.zeros((4, 5)), np.zeros(HORIZON + 1), np.full(4, 0.25)
    for length in range(HORIZON):
        step = running[:, None] * FOLLOWS  # (4, 5)
        pairs += step
        lengths[length] = step[:, END].sum()
        running = step[:, :END].sum(0)
    lengths[HORIZON] = running.sum()
    return pairs / pairs.sum(), lengths


def variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def markov_task(n_texts=2000):
    def continuation(text):
        return "".join(f" {SYMBOLS[i]}" for i in text[1:])

    texts = markov_texts(n_texts, 2)
    prompts = [Prompt(symbol, tuple(continuation(t) for t in texts if SYMBOLS[t[0]] == symbol)) for symbol in SYMBOLS]
    return Task("Markov-v0", {"train": prompts}, "copy-token", HORIZON, lambda e: [0.0] * len(e), allowed_tokens=tuple(SYMBOLS))


def made(task, **settings):
    return textgym.make_agent("gail", task, seed=0, device="cpu", **{"kl_coef": 0.0, **settings})


def markov_agent(**settings):
    discriminator = {"learning_rate": 5e-3, **settings.pop("discriminator", {})}
    options = {"n_envs": 128, "replay_iterations": 1, "discriminator_updates": 4, "n_minibatches": 1, "learning_rate": 2e-3, "share": 1.0}
    return made(markov_task(), discriminator=discriminator, lr_schedule="linear", **{**options, **settings})


def written(agent, n=2400):
    texts = agent.generate([SYMBOLS[i % 4] for i in range(n)], seed=5)
    return bigrams_and_lengths([[SYMBOLS.index(word) for word in text.split()] for text in texts])


@pytest.mark.slow
def test_the_experts_bigrams_and_lengths_are_recovered():
    """Total variation of the bigrams: 0.41 at the start, 0.052 at the end, 0.016 of as many texts of the expert itself; lengths 0.23, 0.035, 0.013."""
    truth = exact()
    noise = [variation(a, b) for a, b in zip(bigrams_and_lengths(markov_texts(2400, 4)), truth, strict=True)]
    agent = markov_agent()
    start = [variation(a, b) for a, b in zip(written(agent), truth, strict=True)]
    agent.learn(30_000)
    end = [variation(a, b) for a, b in zip(written(agent), truth, strict=True)]
    assert start[0] > 0.35
    assert end[0] < 0.09
    assert end[1] < 0.08
    assert noise[0] < 0.02


@pytest.mark.slow
def test_without_absorbing_states_a_positive_reward_makes_texts_too_long():
    lengths = np.arange(HORIZON + 1)
    wanted = exact()[1]
    found = {}
    for absorbing in (False, True):
        agent = markov_agent(form="positive", discriminator={"absorbing": absorbing})
        agent.learn(12_000)
        found[absorbing] = written(agent)[1]
    assert found[False] @ lengths > wanted @ lengths + 1
    assert found[True] @ lengths == pytest.approx(wanted @ lengths, abs=0.5)
    assert variation(found[True], wanted) < 0.15 < 0.3 < variation(found[False], wanted)


def test_policy_loss_and_advantages_by_hand():
    agent = made("CopyToken", n_envs=4, max_new_tokens=3, gamma=0.9, gae_lambda=0.8, vf_coef=0.3, batch_size=3)
    with torch.no_grad():
        agent.policy.value_head.weight.add_(0.1)
    texts = agent.write_groups()
    rewards = [np.arange(len(t.action_ids)) + 0.5 for t in texts]
    columns = agent.columns(texts, rewards)
    with torch.no_grad():
        for weights in agent.policy.lm.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    by_hand, n_tokens = 0.0, sum(len(t.action_ids) for t in texts)
    before = made("CopyToken", n_envs=4, max_new_tokens=3).policy  # the same seed: the weights before
    with torch.no_grad():
        before.value_head.weight.add_(0.1)
    for text, reward in zip(texts, rewards, strict=True):
        values, new, old = [], [], []
        for t, token in enumerate(text.action_ids):
            ids = torch.from_numpy(np.concatenate([text.prompt_ids, text.action_ids[:t]]))[None]
            for policy, kept in ((agent.policy, new), (before, old)):
                out = policy.lm.model(input_ids=ids, output_hidden_states=True)
                logits = policy.rule.apply(out.logits[:, -1], policy.allowed)
                kept.append((logits.log_softmax(-1)[0, token], policy.value_head(out.hidden_states[-1][0, -1])[0]))
        values = [v.item() for _, v in old] + [0.0]
        advantage = 0.0
        for t in reversed(range(len(text.action_ids))):
            advantage = reward[t] + 0.9 * values[t + 1] - values[t] + 0.9 * 0.8 * advantage
            ratio = (new[t][0] - old[t][0].detach()).exp()
            surrogate = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            by_hand = by_hand + (surrogate + 0.3 * (new[t][1] - advantage - values[t]).square()) / n_tokens
    ours = sum(loss for loss, _ in agent.losses(texts, columns, range(4)))
    assert ours.item() == pytest.approx(by_hand.item(), abs=1e-5)
    parameters = list(agent.policy.parameters())
    a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]) for loss in (ours, by_hand))
    assert (a - b).norm().item() <= 1e-5 * max(1.0, b.norm().item())


def test_the_tasks_reward_may_be_mixed_in():
    agent = made("CopyToken", n_envs=8, task_reward_coef=0.5)
    texts = agent.write_groups()
    assert any(t.rewards.sum() for t in texts)
    assert all(r.sum() == 0.5 * t.rewards.sum() for r, t in zip(agent.rewards(texts), texts, strict=True))  # no opinion at first


def test_experts_from_a_file_and_only_their_prompts_are_continued(tmp_path):
    items = [ExpertText(id=str(i), prompt=prompt, text=f" {prompt[-1]}") for i, prompt in enumerate(["a b", "c d", "z z"])]
    write_judgements(JudgementSet("texts", tuple(items)), tmp_path / "experts.jsonl")
    agent = made("CopyToken", expert=str(tmp_path / "experts.jsonl"), n_envs=16)
    prompts = {agent.env.mdp.prompt_set.prompts[i].text for i in agent.prompts}
    assert prompts == {"a b", "c d"}
    assert [t.info["continuation"].strip() for t in agent.expert[:2]] == ["b", "d"]
    agent.learn(16)
    write_judgements(JudgementSet("texts", (ExpertText(id="1", prompt="a b", text=" b", split="test"),)), tmp_path / "test.jsonl")
    with pytest.raises(textgym.InvalidArgumentError, match="there is no expert text to imitate"):
        made("CopyToken", expert=str(tmp_path / "test.jsonl"))
    bare = Task("Bare-v0", {"train": ["a b"]}, "copy-token", 1, "copied")
    with pytest.raises(textgym.InvalidArgumentError, match="has no references"):
        made(bare)
