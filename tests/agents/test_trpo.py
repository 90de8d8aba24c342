"""TRPO: gradients in one backward pass are those of sb3-contrib, which takes one per weight tensor."""

import torch
from sb3_contrib import TRPO
from torch.distributions import kl_divergence

import textgym


def test_gradients_and_curvature_are_sb3_contribs():
    agent = textgym.make_agent("trpo", "CopyToken", n_envs=4, n_steps=8, kl_coef=0.0, cg_max_steps=2, device="cpu")
    agent.learn(32)
    algorithm = agent.algorithm
    batch = next(iter(algorithm.rollout_buffer.get(None)))
    with torch.no_grad():
        old = algorithm.policy.get_distribution(batch.observations).distribution
    moved = torch.distributions.Categorical(logits=old.logits + 0.1 * torch.randn_like(old.logits))

    def objectives():
        distribution = algorithm.policy.get_distribution(batch.observations)
        gain = (batch.advantages * (distribution.log_prob(batch.actions) - batch.old_log_prob).exp()).mean()
        return kl_divergence(distribution.distribution, moved).mean(), gain

    ours = algorithm._compute_actor_grad(*objectives())
    theirs = TRPO._compute_actor_grad(algorithm, *objectives())
    assert all(a is b for a, b in zip(ours[0], theirs[0], strict=True))
    assert ours[3] == [tuple(shape) for shape in theirs[3]]
    torch.testing.assert_close(ours[1], theirs[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[2], theirs[2], atol=1e-5, rtol=1e-5)
    vector = torch.randn_like(ours[1])
    curved = [algorithm.hessian_vector_product(found[0], found[2], vector) for found in (ours, theirs)]
    torch.testing.assert_close(*curved, atol=1e-5, rtol=1e-4)
    assert not any(name.startswith("value_head") for name, p in algorithm.policy.named_parameters() if any(p is q for q in ours[0]))
