"""GRPO and RLOO: loss and gradient are TRL's, advantages are those of the papers, groups without a difference are drawn anew."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import textgym
from textgym.learning.clipped_surrogate import clipped_surrogate

N_ENVS, GROUP = 8, 4


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory):
    """A model with weights, so that there is a reference to stay close to."""
    folder = tmp_path_factory.mktemp("reference") / "model"
    textgym.make_agent("base", "CopyToken", seed=1, n_envs=4, device="cpu").policy.save_pretrained(folder)
    return folder


def make(name, folder, **settings):
    """An agent and texts of different lengths that it wrote."""
    settings = {"n_envs": N_ENVS, "group_size": GROUP, "max_new_tokens": 6, "kl_coef": 0.1, "device": "cpu", **settings}
    reward = lambda episodes: [float(len(e.continuation) % 5) for e in episodes]  # noqa: E731
    agent = textgym.make_agent(name, "CopyToken", model=folder, reward=reward, seed=0, **settings)
    texts = agent.write_groups(GROUP)
    assert len({len(t.action_ids) for t in texts}) > 1, "texts of one length cannot tell the loss types apart"
    return agent, texts


def moved(texts, scale):
    """Old log-probabilities as if the weights had left those that the texts were written with: ratios on both sides of the clip."""
    rng = np.random.default_rng(0)
    return [(t.log_probs + rng.normal(0, scale, len(t.log_probs))).astype(np.float32) for t in texts]


def gradient(loss, policy):
    weights = list(policy.lm.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])


def padded_log_probs(policy, texts):
    """Log-probabilities (n, T) and mask of the actions by a full forward of the Hugging Face model, one text at a time."""
    width = max(len(t.action_ids) for t in texts)
    rows = []
    for t in texts:
        ids = torch.from_numpy(np.concatenate([t.prompt_ids, t.action_ids]))
        logits = policy.lm.model(input_ids=ids[None], use_cache=False).logits[0, len(t.prompt_ids) - 1 : -1]
        logits = logits.masked_fill(~policy.allowed, -1e9).log_softmax(-1)
        chosen = logits.gather(-1, ids[len(t.prompt_ids) :, None]).squeeze(-1)
        rows.append(torch.nn.functional.pad(chosen, (0, width - len(chosen))))
    return torch.stack(rows), pad([np.ones(len(t.action_ids)) for t in texts])


def pad(arrays):
    width = max(map(len, arrays))
    return torch.from_numpy(np.stack([np.pad(a, (0, width - len(a))) for a in arrays]).astype(np.float32))


def trl_loss(trainer, agent, texts, inputs, **options):
    """The loss of TRL's own code on our texts; what it asks of a trainer beside is filled in."""
    log_probs, mask = padded_log_probs(agent.policy, texts)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    identity = SimpleNamespace(gather=lambda x: x, reduce=lambda x, **_: x, num_processes=1)
    me = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, torch.zeros_like(log_probs), None),
        model=SimpleNamespace(training=False),
        accelerator=identity,
        _metrics={"eval": defaultdict(list)},
        aux_loss_enabled=False,
        **options,
    )
    given = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": mask.long(), **inputs}
    return trainer._compute_loss(me, None, given)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("loss_type", "theirs"), [("grpo", "grpo"), ("dr-grpo", "dr_grpo"), ("dapo", "dapo")])
def test_grpo_loss_and_gradient_are_trls(loss_type, theirs, reference_folder):
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    agent, texts = make("grpo", reference_folder, loss_type=loss_type, batch_size=8)  # several micro-batches
    advantages = agent.advantages(np.array([t.rewards.sum() for t in texts]))
    reference = [r - 0.3 for r in agent.reference_log_probs(texts)]
    columns = {"old": moved(texts, 0.3), "reference": reference}
    parts = list(agent.losses(texts, advantages, columns, range(len(texts))))
    assert len(parts) > 1
    assert 0 < sum(figures["clip_fraction"] for _, figures in parts) < 1
    ours = sum(loss for loss, _ in parts)
    expected = trl_loss(
        trainer,
        agent,
        texts,
        {
            "advantages": torch.from_numpy(advantages).float(),
            "old_per_token_logps": pad(columns["old"]),
            "ref_per_token_logps": pad(reference),
            "num_items_in_batch": torch.tensor(float(sum(len(t.action_ids) for t in texts))),
        },
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=agent.kl_coef, loss_type=theirs,
        epsilon_low=0.2, epsilon_high=0.28 if theirs == "dapo" else 0.2, use_vllm=False, _entropy_bonus_enabled=False,
        use_adaptive_entropy=False, max_completion_length=6,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
    )  # fmt: skip
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(ours, agent.policy), gradient(expected, agent.policy), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_rloo_loss_and_gradient_are_trls(reference_folder):
    trainer = pytest.importorskip("trl.trainer.rloo_trainer").RLOOTrainer
    agent, texts = make("rloo", reference_folder, batch_size=8)
    advantages = agent.advantages(np.array([t.rewards.sum() for t in texts]))
    columns = {"old": moved(texts, 0.1)}
    ours = sum(loss for loss, _ in agent.losses(texts, advantages, columns, range(len(texts))))
    inputs = {"advantages": torch.from_numpy(advantages).float(), "old_logps": pad(columns["old"]).sum(1)}
    expected = trl_loss(trainer, agent, texts, inputs, epsilon_low=0.2, epsilon_high=0.2, beta=0.0)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(ours, agent.policy), gradient(expected, agent.policy), atol=1e-5, rtol=1e-4)


def test_advantages_by_hand(reference_folder):
    scores = np.array([1.0, 2.0, 3.0, 6.0, 5.0, 5.0, 5.0, 5.0])  # two groups of four
    grpo, dr_grpo = (make("grpo", reference_folder, loss_type=loss_type)[0] for loss_type in ("grpo", "dr-grpo"))
    gaps = np.array([-2.0, -1.0, 0.0, 3.0])
    np.testing.assert_allclose(dr_grpo.advantages(scores), [*gaps, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(grpo.advantages(scores), [*gaps / (np.sqrt(14 / 3) + 1e-4), 0, 0, 0, 0], atol=1e-12)
    rloo = make("rloo", reference_folder, normalize_advantage=False)[0]
    np.testing.assert_allclose(rloo.advantages(scores), [1 - 11 / 3, 2 - 10 / 3, 3 - 9 / 3, 6 - 6 / 3, 0, 0, 0, 0], atol=1e-12)


def test_leave_one_out_reinforce_by_hand(reference_folder):
    agent, texts = make("reinforce", reference_folder, baseline="leave-one-out", normalize_advantage=False, kl_coef=0.0)
    totals = np.array([t.rewards.sum() for t in texts]).reshape(-1, GROUP)
    others = (totals.sum(1, keepdims=True) - totals) / (GROUP - 1)
    worth = (totals - others).ravel()
    per_token = [np.full(len(t.action_ids), a) for t, a in zip(texts, worth, strict=True)]
    ours = sum(loss for loss, _ in agent._losses(texts, per_token))
    log_probs, mask = padded_log_probs(agent.policy, texts)
    expected = -(log_probs * mask * torch.from_numpy(worth).float()[:, None]).sum() / mask.sum()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(ours, agent.policy), gradient(expected, agent.policy), atol=1e-5, rtol=1e-4)


def test_clipped_surrogate_by_hand():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    loss, clipped = clipped_surrogate(ratio.log(), torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0]), 0.2, 0.3)
    torch.testing.assert_close(loss, torch.tensor([-1.3, 1.5, -0.5, 0.8, -2.2]))
    assert clipped.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_first_step_has_ratio_one(name, reference_folder):
    agent = textgym.make_agent(
        name, "ReviewContinuation", n_envs=8, group_size=4, n_epochs=1, n_minibatches=1, max_new_tokens=8, device="cpu"
    )
    agent.iterate()
    assert agent.logger.name_to_value["train/clip_fraction"] == 0
    assert agent.logger.name_to_value["train/approx_kl"] < 1e-9


def test_dapo_leaves_equal_groups_out_and_draws_again():
    agent = textgym.make_agent("grpo", "CopyToken", loss_type="dapo", n_envs=16, group_size=4, max_draws=3, device="cpu")
    written = agent.iterate()
    assert written == agent.costs.tokens_generated
    assert 0 < agent.logger.name_to_value["rollout/kept_groups"] <= 1
    assert agent.n_tokens_trained <= 2 * 16
    equal = textgym.make_agent("grpo", "CopyToken", reward=lambda e: [1.0] * len(e), loss_type="dapo", n_envs=8, max_draws=3, device="cpu")
    before = [p.clone() for p in equal.policy.parameters()]
    equal.iterate()
    assert equal.costs.texts_scored == 24
    assert equal.n_tokens_trained == 0
    assert all(torch.equal(a, b) for a, b in zip(before, equal.policy.parameters(), strict=True))


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_dapo_compares_what_the_task_rewards_and_no_penalty(kl_in):
    settings = {"n_envs": 8, "group_size": 4, "max_draws": 2, "max_new_tokens": 4, "overlong_tokens": 3, "kl_in": kl_in, "device": "cpu"}
    agent = textgym.make_agent("grpo", "ReviewContinuation", reward=lambda e: [1.0] * len(e), loss_type="dapo", **settings)
    torch.nn.init.normal_(agent.policy.lm.model.transformer.ln_f.bias, std=0.1)  # away from the reference, so that there is a penalty
    agent.iterate()
    assert agent.logger.name_to_value["rollout/kl"] != 0
    assert agent.logger.name_to_value["rollout/kept_groups"] == 0
    assert agent.n_tokens_trained == 0


def test_overlong_texts_cost_reward():
    agent = textgym.make_agent("grpo", "CopyToken", n_envs=8, max_new_tokens=6, overlong_tokens=4, device="cpu")
    texts = [SimpleNamespace(action_ids=np.zeros(n)) for n in (1, 2, 4, 6)]
    np.testing.assert_allclose(agent._overlong(texts), [0, 0, 0.5, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "drgrpo"}, "loss_type must be one of"),
        ({"kl_in": "both"}, "kl_in must be one of"),
        ({"group_size": 5}, "must be a multiple of group_size=5"),
        ({"clip_range": 0}, "clip_range must be between"),
        ({"n_epochs": 0}, "n_epochs and n_minibatches"),
        ({"max_draws": 0}, "max_draws"),
        ({"overlong_tokens": -1}, "overlong_tokens"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        textgym.make_agent("grpo", "CopyToken", device="cpu", **settings)
