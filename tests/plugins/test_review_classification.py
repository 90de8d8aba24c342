"""The task "ReviewClassification": one label is chosen, never the end; its data; its supervised control."""

import numpy as np
import pytest

import textgym
from textgym.envs.env import TextEnv
from textgym.experiments.evaluate import evaluate
from textgym.tasks import make_task

TASK = make_task("ReviewClassification")


def test_only_labels_may_be_chosen_and_one_ends_the_episode():
    env = TextEnv(TASK)
    ids = env.mdp.vocabulary.token_ids([" poor", " excellent"])
    assert set(np.flatnonzero(env.action_masks())) == set(ids)
    env.reset(options={"prompt_index": 0})
    right = TASK.split("train")[0].references[0]
    for token, label in zip(ids, (" poor", " excellent"), strict=True):
        env.reset(options={"prompt_index": 0})
        _, reward, terminated, _, info = env.step(token)
        assert (reward, terminated) == (1.0 if label == right else -1.0, True)
        assert info["label"] == right.strip()
        assert info["continuation"] == label


def test_prompts_are_sentences_with_the_sign_of_their_rating():
    texts = {split: {p.text for p in prompts} for split, prompts in TASK.prompts.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    for split, prompts in TASK.prompts.items():
        assert len(texts[split]) == len(prompts)
        assert 0.48 < np.mean([p.references == (" excellent",) for p in prompts]) < 0.53
        for p in prompts:
            assert p.metadata["source"] in ("movie", "product")
            assert abs(p.metadata["rating"]) >= 0.5
            assert p.references == ((" excellent",) if p.metadata["rating"] > 0 else (" poor",))
    with pytest.raises(textgym.InvalidArgumentError, match="least_rating must be above 0"):
        make_task("ReviewClassification", least_rating=0)


def test_an_agent_generates_labels():
    agent = textgym.make_agent("base", "ReviewClassification", n_envs=2, device="cpu")
    prompts = ["Wonderful. Is it poor or excellent? It is really", "Awful. Is it poor or excellent? It is really"]
    for seed in range(5):
        for prompt, text in zip(prompts, agent.generate(prompts, seed=seed), strict=True):
            assert text in (f"{prompt} excellent", f"{prompt} poor")


def test_the_supervised_control_is_much_better_than_chance_and_reloads(tmp_path):
    agent = textgym.make_agent("supervised", "ReviewClassification", n_envs=2, device="cpu")
    found = evaluate(agent, "validation", 400, 0)
    assert found.classification["accuracy"] > 0.7 > found.classification["majority"] + 0.1
    agent.save(tmp_path / "agent")
    assert evaluate(textgym.load_agent(tmp_path / "agent"), "validation", 400, 0).continuations == found.continuations
    with pytest.raises(textgym.InvalidArgumentError, match="needs a task with labels, which 'CopyToken-v0' does not have"):
        textgym.make_agent("supervised", "CopyToken")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokens", "settings"),
    [
        ("soft-q", 640, {"learning_rate": 1e-3, "alpha": 0.3, "updates": 2, "value_lr_scale": 1.0}),
        ("bc", 1_024, {"learning_rate": 1e-3, "share": 1.0, "n_envs": 16}),
    ],
)
def test_it_is_learnt(name, tokens, settings):
    clear = make_task("ReviewClassification", least_rating=2.0)
    agent = textgym.make_agent(name, clear, seed=100, device="cpu", **settings)
    agent.learn(tokens)
    found = evaluate(agent, "validation", 400, 0).classification
    assert found["majority"] < 0.53
    assert found["accuracy"] > 0.57
    assert min(found["recall_excellent"], found["recall_poor"]) > 0.3  # not one label for all
