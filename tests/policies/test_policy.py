"""The policy: cached = full, gradients = stable-baselines3's own, first ratios 1, KL 0 to itself, the right device everywhere."""

import copy

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.logger import configure
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, AutoTokenizer

import textgym
from textgym.lm.packing import pack
from textgym.lm.token_distribution import SamplingRule, log_prob_and_entropy, sample
from textgym.policies.kl import KLController
from textgym.policies.reference import ReferenceModel
from textgym.policies.rollout_buffer import EpisodeRolloutBuffer
from textgym.sb3 import CausalLMPolicy, make_vec_env


def tensors(obs):
    return {k: torch.as_tensor(v) for k, v in obs.items()}


def make_ppo(task, algorithm=PPO, n_envs=6, n_steps=14, buffer=None, policy=None, **options):
    vec = make_vec_env(task, n_envs=n_envs, seed=0)
    options = {"gamma": 1.0, "seed": 0, "device": "cpu", **options}
    if algorithm is PPO:
        options = {"batch_size": 28, "n_epochs": 2, **options}
    if algorithm is TRPO:
        options = {"batch_size": 42, **options}
    return algorithm(
        CausalLMPolicy,
        vec,
        n_steps=n_steps,
        policy_kwargs={"model": task.model, **(policy or {})},
        rollout_buffer_class=EpisodeRolloutBuffer,
        rollout_buffer_kwargs={"reference_model": task.model, **(buffer or {})},
        **options,
    )


def collect(model):
    """Fill the rollout buffer as `learn` does, without an update."""
    _, callback = model._setup_learn(10_000)
    model.set_logger(configure(format_strings=[]))
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model.rollout_buffer


def full_pass(policy, obs):
    """Log-probabilities of all tokens and values, without any cache."""
    with torch.no_grad():
        hidden = policy.lm.last_hidden(obs["input_ids"], obs["attention_mask"].sum(1))
        return policy.rule.apply(policy.lm.logits(hidden), policy.allowed).log_softmax(-1), policy._values(hidden)


def test_cached_equals_full_with_restarts_interleaved_calls_and_an_update(task):
    model = make_ppo(task)
    policy, env = model.policy, make_vec_env(task, n_envs=5, seed=3)
    torch.nn.init.normal_(policy.value_head.weight)
    other, same = make_vec_env(task, n_envs=1, seed=9), make_vec_env(task, n_envs=5, seed=11)
    obs, extra, twin = env.reset(), other.reset(), same.reset()
    restarts = 0
    for step in range(40):
        with torch.no_grad():
            actions, values, log_probs = policy(tensors(obs))
        reference, reference_values = full_pass(policy, tensors(obs))
        np.testing.assert_allclose(log_probs, reference.gather(1, actions[:, None]).squeeze(1), atol=1e-4)
        np.testing.assert_allclose(values.squeeze(1), reference_values, atol=1e-4)
        if step % 3 == 0:  # evaluation in the middle of a rollout, with another and with the same number of rows
            policy.predict(extra)
            policy.predict(twin, deterministic=True)
            with torch.no_grad():
                policy.predict_values(tensors(obs))
        if step == 20:
            values, log_prob, _ = policy.evaluate_actions(tensors(obs), actions)
            (log_prob.sum() + values.sum()).backward()
            policy.optimizer.step()
        obs, _, dones, _ = env.step(actions.numpy())
        restarts += int(dones.sum())
    assert restarts > 5


def test_cache_notices_a_step_of_a_foreign_fused_optimizer_and_of_a_copy(task):
    obs = tensors(make_vec_env(task, n_envs=5, seed=3).reset())
    policy = make_ppo(task).policy
    torch.nn.init.normal_(policy.value_head.weight)
    for each in (policy, copy.deepcopy(policy)):
        optimizer = torch.optim.AdamW(each.parameters(), lr=0.01, fused=True)
        with torch.no_grad():
            _, before, _ = each(obs)
        values, log_prob, _ = each.evaluate_actions(obs, torch.full((5,), 5))
        (log_prob.sum() + values.sum()).backward()
        with torch.no_grad():
            each(obs)  # the cache is filled again between the gradient and the step
        optimizer.step()
        with torch.no_grad():
            actions, after, log_probs = each(obs)
        reference, reference_values = full_pass(each, obs)
        assert (after - before).abs().max() > 1e-3
        np.testing.assert_allclose(after.squeeze(1), reference_values, atol=1e-4)
        np.testing.assert_allclose(log_probs, reference.gather(1, actions[:, None]).squeeze(1), atol=1e-4)


def test_cache_reads_one_token_per_row_and_step(task):
    policy = make_ppo(task).policy
    env = make_vec_env(task, n_envs=4, seed=0)
    obs = env.reset()
    read = []
    forward = policy.lm.trunk[0].forward
    policy.lm.trunk[0].forward = lambda *a, **k: (read.append(k["input_ids"].numel()), forward(*a, **k))[1]
    keep = np.full(4, 5)
    for step in range(7):
        policy.predict(obs)
        if step:
            assert sum(read) == 4
        read.clear()
        obs = env.step(keep)[0]


@pytest.mark.parametrize("rule", [{}, {"temperature": 0.7, "top_k": 5}])
def test_first_pass_has_ratio_one_and_no_kl_to_itself(task, rule):
    model = make_ppo(task, policy=rule, buffer={"kl_coef": 0.3}, n_epochs=1, batch_size=84, learning_rate=1e-3)
    buffer = collect(model)
    assert abs(buffer.statistics["kl"]) < 1e-6
    assert np.abs(buffer.log_probs).max() > 0
    model.train()
    logged = model.logger.name_to_value
    assert logged["train/approx_kl"] < 1e-5
    assert logged["train/clip_fraction"] == 0
    collect_again = model.collect_rollouts
    _, callback = model._setup_learn(10_000, reset_num_timesteps=False)
    collect_again(model.env, callback, buffer, model.n_steps)
    assert abs(buffer.statistics["kl"]) > 1e-6  # the weights moved


def test_penalty_is_kl_coef_times_log_ratio(task):
    model = make_ppo(task, buffer={"kl_coef": 0.3})
    for p in model.policy.lm.parameters():
        p.data += 0.02 * torch.randn_like(p)
    buffer = model.rollout_buffer
    task_rewards = {}
    compute = buffer._reference_log_probs

    def spy(reference):
        task_rewards["r"] = buffer.rewards.copy()
        task_rewards["ref"] = compute(reference)
        return task_rewards["ref"]

    buffer._reference_log_probs = spy
    collect(model)
    np.testing.assert_allclose(buffer.rewards, task_rewards["r"] - 0.3 * (buffer.log_probs - task_rewards["ref"]), atol=1e-6)
    assert buffer.statistics["kl"] != 0


def test_every_token_once_and_segments_go_on_across_rollouts(task):
    model = make_ppo(task, n_steps=4, batch_size=24)  # shorter than an episode
    buffer = collect(model)
    _, callback = model._setup_learn(10_000, reset_num_timesteps=False)
    model.collect_rollouts(model.env, callback, buffer, model.n_steps)
    assert any(len(s.prefix) > 5 for s in buffer.segments)  # a prefix that holds tokens of the rollout before
    got = np.concatenate([d.old_log_prob.numpy() for d in buffer.get(8)])
    np.testing.assert_array_equal(np.sort(got), np.sort(buffer.log_probs.ravel()))
    sizes = [len(d.actions) for d in buffer.get(8)]
    assert sum(sizes) == 24
    assert max(sizes) <= 12


def both_buffers(model):
    """Return our buffer and stable-baselines3's own, filled by the same rollout."""
    stock = DictRolloutBuffer(
        model.n_steps, model.observation_space, model.action_space, "cpu", gamma=1.0, gae_lambda=model.gae_lambda, n_envs=model.n_envs
    )
    ours = model.rollout_buffer
    add, compute = ours.add, ours.compute_returns_and_advantage
    ours.add = lambda *a: (add(*a), stock.add(*a))
    ours.compute_returns_and_advantage = lambda *a, **k: (compute(*a, **k), stock.compute_returns_and_advantage(*a, **k))
    collect(model)
    return ours, stock


def test_gradient_equals_stable_baselines3_own_buffer(task):
    model = make_ppo(task, buffer={"kl_coef": 0.0})
    ours, stock = both_buffers(model)
    policy = copy.deepcopy(model.policy)
    for p in policy.parameters():
        p.data += 0.01 * torch.randn_like(p)  # so that ratios differ from 1

    def gradient(data):
        values, log_prob, entropy = policy.evaluate_actions(data.observations, data.actions.long().flatten())
        ratio = torch.exp(log_prob - data.old_log_prob)
        clipped = torch.clamp(ratio, 0.8, 1.2)
        loss = -torch.min(data.advantages * ratio, data.advantages * clipped).mean() - 0.01 * entropy.mean()
        loss = loss + 0.5 * torch.nn.functional.mse_loss(data.returns, values.flatten())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])

    mine = gradient(next(ours.get(None)))
    theirs = gradient(next(stock.get(None)))
    assert (mine - theirs).norm() / theirs.norm() < 1e-4
    assert mine.norm() > 0


def test_trpo_gradient_and_curvature_equal_those_on_stable_baselines3_own_buffer(task):
    model = make_ppo(task, TRPO, policy={"attention": "eager", "detach_value": True}, buffer={"kl_coef": 0.0})
    found = []
    for buffer in both_buffers(model):
        data = next(buffer.get(None))
        old, new = (model.policy.get_distribution(data.observations) for _ in range(2))
        old.distribution = type(old.distribution)(logits=old.distribution.logits.detach())
        ratio = torch.exp(new.log_prob(data.actions.long().flatten()) - data.old_log_prob)
        kl = kl_divergence(new, old).mean()
        weights, gradient, kl_gradient, _ = model._compute_actor_grad(kl, (data.advantages * ratio).mean())
        found.append((gradient, model.hessian_vector_product(weights, kl_gradient, gradient)))
    for mine, theirs in zip(*found, strict=True):
        assert theirs.norm() > 0
        assert (mine - theirs).norm() / theirs.norm() < 1e-4


def test_packing_several_segments_equals_one_at_a_time(task):
    policy = make_ppo(task).policy
    rng = np.random.default_rng(0)
    segments = [(rng.integers(2, 22, rng.integers(1, 9)), rng.integers(2, 22, rng.integers(1, 12))) for _ in range(17)]
    with torch.no_grad():
        packed = pack(segments)
        together = policy.lm.packed_hidden(packed)
        alone = torch.cat([policy.lm.packed_hidden(pack([s])) for s in segments])
    assert packed.input_ids.shape[0] < len(segments)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(packed.actions, np.concatenate([a for _, a in segments]))


def test_gae_by_hand_on_three_tokens(task):
    buffer = EpisodeRolloutBuffer(3, make_vec_env(task).observation_space, make_vec_env(task).action_space, "cpu", 0.9, 0.8, 1)
    obs = make_vec_env(task).reset()
    for reward, value, start in ((1.0, 0.5, 1.0), (0.0, 0.25, 0.0), (2.0, -0.5, 0.0)):
        buffer.add(obs, np.array([[3]]), np.array([reward]), np.array([start]), torch.tensor([[value]]), torch.tensor([-1.0]))
    buffer.compute_returns_and_advantage(torch.tensor([[9.0]]), np.array([True]))
    d2 = 2.0 - -0.5
    d1 = 0.0 + 0.8 * -0.5 - 0.25
    d0 = 1.0 + 0.8 * 0.25 - 0.5
    expected = [d0 + 0.72 * (d1 + 0.72 * d2), d1 + 0.72 * d2, d2]
    np.testing.assert_allclose(buffer.advantages[:, 0], expected, rtol=1e-6)


def test_kl_controller_by_hand():
    controller = KLController(0.1, target=0.5, horizon=1000)
    controller.update(5.0, 100)
    assert controller.coef == pytest.approx(0.1 * 1.02)
    controller.update(0.45, 100)
    assert controller.coef == pytest.approx(0.1 * 1.02 * 0.99)


def test_log_prob_and_entropy_against_torch():
    torch.manual_seed(0)
    logits = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(11, (7,))
    assert torch.autograd.gradcheck(lambda x: log_prob_and_entropy(x, actions), (logits,))
    allowed = torch.arange(11) % 3 != 0
    masked = SamplingRule(0.7).apply(logits, allowed)
    chosen = torch.full((7,), 4)
    log_prob, entropy = log_prob_and_entropy(masked, chosen)
    reference = torch.distributions.Categorical(logits=masked)
    torch.testing.assert_close(log_prob, reference.log_prob(chosen))
    torch.testing.assert_close(entropy, reference.entropy())


@pytest.mark.parametrize("top_k", [0, 2, 11])
def test_log_probs_if_chosen_are_those_of_each_token_as_the_chosen_one(top_k):
    logits, allowed = torch.randn(3, 11, generator=torch.Generator().manual_seed(0)), torch.arange(11) % 3 != 0
    rule = SamplingRule(0.7, top_k)
    every = rule.log_probs_if_chosen(logits, allowed)
    for token in torch.where(allowed)[0].tolist():
        alone = rule.apply(logits, allowed, chosen=torch.full((3,), token)).log_softmax(-1)[:, token]
        torch.testing.assert_close(every[:, token], alone)
    assert (every[:, ~allowed].exp() == 0).all()


def test_sampling_follows_the_distribution_and_never_breaks_the_mask():
    allowed = torch.tensor([True, False, True, True, False])
    logits = SamplingRule(1.3).apply(torch.tensor([[0.5, 9.0, -1.0, 1.0, 9.0]]), allowed)
    uniform = torch.linspace(0, 1, 20_001)[:-1]
    drawn = sample(logits.expand(len(uniform), -1), uniform)
    frequencies = torch.bincount(drawn, minlength=5) / len(uniform)
    torch.testing.assert_close(frequencies, logits.softmax(-1)[0], atol=2e-4, rtol=0)
    assert sample(logits, torch.tensor([1.0]))[0] in (0, 2, 3)


@pytest.mark.parametrize(("algorithm", "options"), [(PPO, {}), (A2C, {"use_rms_prop": False}), (TRPO, {"policy": {"attention": "eager"}})])
def test_unmodified_algorithms_run_and_repeat(task, algorithm, options):
    weights = []
    for _ in range(2):
        model = make_ppo(task, algorithm, buffer={"kl_coef": 0.1}, **options)
        model.learn(168)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.isfinite(weights[0]).all()
    assert torch.equal(weights[0], weights[1])


def test_maskable_ppo_demands_its_own_policy_class(task):
    """Documented in docs/train.md: should sb3-contrib ever drop the demand, this fails and the page can change."""
    with pytest.raises(ValueError, match="must subclass MaskableActorCriticPolicy"):
        MaskablePPO(CausalLMPolicy, make_vec_env(task, 2), policy_kwargs={"model": task.model}, device="cpu")


def test_save_pretrained_is_a_plain_hugging_face_folder(task, tmp_path):
    model = make_ppo(task)
    model.learn(84)
    model.policy.save_pretrained(tmp_path / "out")
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("w1 w2 w3", return_tensors="pt")["input_ids"]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(ids).logits
    np.testing.assert_allclose(theirs.detach(), model.policy.lm.model.eval()(ids).logits.detach(), atol=1e-6)
    again = CausalLMPolicy(model.observation_space, model.action_space, lambda _: 0.0, model=tmp_path / "out")
    assert torch.equal(again.value_head.weight, model.policy.value_head.weight)
    model.policy.save(tmp_path / "policy.zip")
    loaded = CausalLMPolicy.load(tmp_path / "policy.zip")
    assert torch.equal(loaded.value_head.weight, model.policy.value_head.weight)


class DeviceRequired(TorchFunctionMode):
    """Refuses tensor factories without device=: on a GPU they would make CPU tensors."""

    FACTORIES = frozenset(
        {torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.tensor, torch.rand, torch.as_tensor, torch.linspace}
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):
        import sys

        caller = sys._getframe(1).f_code.co_filename
        if func in self.FACTORIES and not (kwargs or {}).get("device") and "textgym" in caller:
            raise AssertionError(f"{func.__name__} without device= in {caller}")
        return func(*args, **(kwargs or {}))


def test_no_tensor_is_made_without_a_device(task):
    model = make_ppo(task, buffer={"kl_coef": 0.1})
    with DeviceRequired():
        buffer = collect(model)
        for data in buffer.get(28):
            model.policy.evaluate_actions(data.observations, data.actions)
    with pytest.raises(AssertionError, match="without device="), DeviceRequired():
        exec(compile("torch.zeros(1)", "textgym/x.py", "exec"), {"torch": torch})


def test_update_and_reference_on_the_meta_device(task):
    """The meta device refuses operands of another device, so a tensor left on the CPU would raise."""
    model = make_ppo(task)
    buffer = collect(model)
    policy = model.policy.to("meta")
    batch = pack([(s.prefix, buffer.actions[s.start : s.stop, s.env]) for s in buffer.segments]).to(torch.device("meta"))
    hidden = policy.lm.packed_hidden(batch)
    logits = policy.rule.apply(policy.lm.logits(hidden), policy.allowed, chosen=batch.actions)
    log_prob = logits.log_softmax(-1).gather(-1, batch.actions[:, None])
    assert log_prob.device.type == policy._values(hidden).device.type == "meta"
    with pytest.raises((RuntimeError, torch._subclasses.fake_tensor.UnsupportedOperatorException)):
        policy.rule.apply(policy.lm.logits(hidden), policy.allowed.to("meta"), chosen=batch.actions) + torch.zeros(3, 5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_whole_loop_on_cuda(task):
    model = make_ppo(task, buffer={"kl_coef": 0.1}, device="cuda")
    model.learn(168)
    assert next(model.policy.parameters()).device.type == "cuda"
    assert model.rollout_buffer.reference.log_probs([(np.array([2, 3]), np.array([4]))], SamplingRule(), None).shape == (1,)


def test_bad_input_is_one_line(task, model_folder):
    space = make_vec_env(task).observation_space
    with pytest.raises(textgym.InvalidArgumentError, match="pass the same model="):
        CausalLMPolicy(space, make_vec_env("CopyToken").action_space, lambda _: 0.0, model=model_folder)
    with pytest.raises(textgym.InvalidArgumentError, match="temperature must be greater than 0"):
        make_ppo(task, policy={"temperature": 0.0})
    with pytest.raises(textgym.InvalidArgumentError, match="needs reference_model="):
        make_ppo(task, buffer={"kl_coef": 0.1, "reference_model": None})
    with pytest.raises(textgym.InvalidArgumentError, match=r"kl_target=0.5 scales kl_coef, which is 0 and would stay 0"):
        make_ppo(task, buffer={"kl_coef": 0.0, "kl_target": 0.5})
    for bad in ({"kl_coef": -0.1}, {"kl_coef": 0.1, "kl_target": 0.0}):
        with pytest.raises(textgym.InvalidArgumentError, match="must be"):
            make_ppo(task, buffer=bad)
    buffer = make_ppo(task).rollout_buffer
    with pytest.raises(textgym.InvalidArgumentError, match="the ratio would broadcast"):
        buffer.add(make_vec_env(task, 6).reset(), np.zeros(6), np.zeros(6), np.ones(6), torch.zeros(6, 1), torch.zeros(6, 1))
    with pytest.raises(textgym.InvalidArgumentError, match="dtype must be one of torch's"):
        ReferenceModel(model_folder, dtype="float31")
