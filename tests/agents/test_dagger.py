"""DAgger: the expert's labels, its loss by hand, and what it learns that references cannot show."""

import numpy as np
import pytest
import torch
from textgym_plugins.token_chain import SYMBOLS, mean_reward

import textgym
from tests.agents.dynamic_programming import optimal_values
from textgym.agent import Agent
from textgym.learning.expert import ExpertTokens
from textgym.learning.negative_log_likelihood import negative_log_likelihood

SEQUENCE = "abcdef"
REPAIR = "h"


def made(name, task="CopyToken", **settings):
    return textgym.make_agent(name, task, **{"device": "cpu", "n_envs": 8, **settings})


def ids(agent, words):
    return tuple(agent.env.mdp.vocabulary.tokenizer.convert_tokens_to_ids(list(words)))


def test_the_expert_of_token_chain_is_the_optimal_policy():
    agent = made("dagger", "TokenChain")
    optimum, expert = optimal_values(0.0), ExpertTokens(agent.env.mdp)
    for prefix, q in optimum.items():
        index = [p.text for p in agent.env.mdp.prompt_set.prompts].index(" ".join(prefix[:2]))
        token = agent.env.mdp.vocabulary.tokenizer.convert_ids_to_tokens(expert.token(index, ids(agent, prefix[2:])))
        assert q[token] == pytest.approx(max(q.values()))
    assert expert.token(0, ids(agent, ["a", "<eos>"])) == ids(agent, ["<eos>"])[0]
    assert len(optimum) == 9 * (1 + len(SYMBOLS) + len(SYMBOLS) ** 2)
    assert max(optimum["a", "b"].values()) > mean_reward("ab", "")


def test_prefixes_asked_about_together_get_the_same_tokens():
    agent = made("dagger", "TokenChain")
    texts, labels = agent.write_mixed(0.0)
    prompts = [agent.env.mdp.prompt_set.ids.index(t.prompt_ids.tolist()) for t in texts]
    one_by_one = ExpertTokens(agent.env.mdp)
    for index, text, wanted in zip(prompts, texts, labels, strict=True):
        chosen = tuple(text.action_ids.tolist())
        assert wanted.tolist() == [one_by_one.token(index, chosen[:t]) for t in range(len(chosen))]
    end = min(agent.env.mdp.vocabulary.eos_ids)
    asked = [(0, ()), (1, (end,)), (0, ())]
    assert ExpertTokens(agent.env.mdp).tokens(asked) == [one_by_one.token(0, ()), end, one_by_one.token(0, ())]


def test_a_task_with_labels_has_an_expert():
    agent = made("dagger", "ReviewClassification", n_envs=16)
    texts, labels = agent.write_mixed(0.0)
    wrote = [t.info["continuation"].strip() == t.info["label"] for t in texts]
    agreed = [bool(t.action_ids[0] == wanted[0]) for t, wanted in zip(texts, labels, strict=True)]
    assert wrote == agreed
    assert 0 < sum(wrote) < 16
    texts, _ = agent.write_mixed(1.0)
    assert all(t.rewards.sum() == 1 for t in texts)
    assert all(np.isnan(t.log_probs).all() for t in texts)


def test_the_share_of_the_expert_decays():
    agent = made("dagger", "TokenChain", mix=0.5, n_envs=200)
    shares = []
    for _ in range(3):
        share = agent.mix**agent.n_iterations
        texts, _ = agent.write_mixed(share)
        shares.append(np.isnan(np.concatenate([t.log_probs for t in texts])).mean())
        agent.iterate()
        assert agent.logger.name_to_value["rollout/expert_share"] == share
    assert shares[0] == 1.0
    assert shares[1:] == pytest.approx([0.5, 0.25], abs=0.08)


def test_loss_and_gradient_by_hand():
    agent = made("dagger", "TokenChain")
    texts, labels = agent.write_mixed(0.3)
    assert any((t.action_ids != wanted).any() for t, wanted in zip(texts, labels, strict=True))
    policy = agent.policy
    losses = list(negative_log_likelihood(policy, texts, 5, labels))
    sum(loss for loss, _ in losses).backward()
    ours = [p.grad.clone() for p in policy.lm.parameters()]
    policy.zero_grad()
    parts = []
    for t, wanted in zip(texts, labels, strict=True):
        for step, token in enumerate(wanted):
            prefix = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids[:step]]))[None]
            logits = policy.lm.model(input_ids=prefix).logits[0, -1].masked_fill(~policy.allowed, -torch.inf)
            parts.append(-logits.log_softmax(-1)[token])
    total = torch.stack(parts).mean()
    total.backward()
    assert sum(loss.item() for loss, _ in losses) == pytest.approx(total.item(), abs=1e-5)
    for grad, p in zip(ours, policy.lm.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=0, atol=1e-5)


def on_track(prompt, continuation):
    """Say the sequence in order; after a wrong symbol repair it, then go on."""
    written = continuation.split()
    n = len(written)
    last_is_right = n == 0 or written[-1] in (SEQUENCE[n - 1], REPAIR)
    return f" {SEQUENCE[n] if last_is_right else REPAIR}"


class OnTrack:
    """Share of the tokens that are those of the expert."""

    def score(self, episodes):
        found = []
        for e in episodes:
            written = e.continuation.split()
            wanted = [on_track(None, " ".join(written[:n])).strip() for n in range(len(SEQUENCE))]
            found.append(np.mean([w == said for w, said in zip(wanted, written, strict=False)]) * len(written) / len(SEQUENCE))
        return found


@pytest.mark.slow
def test_it_learns_to_repair_mistakes_that_no_reference_has():
    """Half-trained policies make mistakes; references never show what follows, so cloning stays lost where DAgger comes back."""
    reference = " " + " ".join(SEQUENCE)
    prompts = [textgym.Prompt(f"{a} {b}", (reference,)) for a in "abc" for b in "abc"]
    task = textgym.Task(
        "Track-v0",
        {"train": prompts, "validation": prompts, "test": prompts},
        "copy-token",
        len(SEQUENCE),
        OnTrack,
        allowed_tokens=tuple(SEQUENCE + REPAIR),
        may_end=False,
        expert=on_track,
    )

    def after_a_mistake(agent):
        """Return how probable the right continuation is after each wrong first symbol."""
        found = []
        end = ids(agent, [REPAIR])[0]
        for wrong in "bcdef":
            prefix = torch.tensor([[*ids(agent, "ab"), *ids(agent, wrong)]])
            logits = agent.policy.lm.model(input_ids=prefix).logits[0, -1].masked_fill(~agent.policy.allowed, -torch.inf)
            found.append(logits.softmax(-1)[end].item())
        return np.mean(found)

    scores, repairs = {}, {}
    for name in ("bc", "dagger"):
        agents = [made(name, task, seed=seed, learning_rate=2e-3, n_envs=9) for seed in range(2)]
        for agent in agents:
            while agent.n_tokens_trained < 6_000:
                agent.iterate()
        rng = np.random.default_rng(0)
        scores[name] = [np.mean([t.rewards.sum() for t in Agent.write(a, a.env.mdp, list(range(9)) * 20, rng)]) for a in agents]
        repairs[name] = [after_a_mistake(a) for a in agents]
    print(scores, repairs)
    assert min(repairs["dagger"]) > 0.5 > 0.1 > max(repairs["bc"])
    assert min(scores["dagger"]) > max(scores["bc"])


def test_a_task_without_expert_and_one_that_wants_the_impossible_are_one_line():
    with pytest.raises(textgym.InvalidArgumentError, match=r"task 'ReviewContinuation-v0' has no expert .* agent 'bc'"):
        made("dagger", "ReviewContinuation")
    task = textgym.Task("Odd-v0", {"train": ["a b"]}, "copy-token", 1, "copied", allowed_tokens=("a",), expert=lambda *_: " c")
    with pytest.raises(textgym.InvalidArgumentError, match="the expert of task 'Odd-v0' wants ' c' after 'a b', which the task does not"):
        made("dagger", task, n_envs=1).iterate()
    for settings, message in (({"mix": 2.0}, "mix must be"), ({"updates": 0}, "updates must"), ({"kl_coef": 0.1}, "leave kl_coef=0.1 out")):
        with pytest.raises(textgym.InvalidArgumentError, match=message):
            made("dagger", **settings)
