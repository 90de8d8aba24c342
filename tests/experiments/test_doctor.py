"""The doctor: every rule finds the fault that was planted in a real run, and none finds anything in healthy runs."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from textgym_agents.ppo import PPOAgent
from textgym_agents.reinforce import ReinforceAgent
from torch import nn

import textgym
from textgym.cli.doctor import doctor_command
from textgym.errors import DivergenceError, RunDirectoryError, TextgymError
from textgym.experiments.diagnosis import RULES, diagnose
from textgym.experiments.run_directory import METRICS_FILE
from textgym.experiments.run_record import Curve, RunRecord, read_run
from textgym.experiments.train import TrainConfig, resume, train
from textgym.lm.token_distribution import SamplingRule
from textgym.plugin_manager import installed_plugins
from textgym.policies.causal_lm_policy import CausalLMPolicy
from textgym.policies.generation import generate

# --- agents with a fault ---------------------------------------------------------------------------------------------------------


class WithDropout(ReinforceAgent):
    """Dropout is on in training, and only there."""

    def __init__(self, task, **settings):
        super().__init__(task, **settings)
        for module in self.policy.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2


class OtherRulePolicy(CausalLMPolicy):
    """Draws tokens, and gives their log-probabilities, under another rule than the update."""

    drawn_with = SamplingRule(temperature=0.5)

    def forward(self, obs, deterministic=False):
        shared, self.rule = self.rule, self.drawn_with
        try:
            return super().forward(obs, deterministic)
        finally:
            self.rule = shared


class OtherMaskPolicy(OtherRulePolicy):
    drawn_with = SamplingRule(top_k=2)


class OtherTemperature(PPOAgent):
    policy_class = OtherRulePolicy


class OtherMask(PPOAgent):
    policy_class = OtherMaskPolicy


class StaleTexts(ReinforceAgent):
    """The texts are the first policy's, the log-probabilities today's."""

    def __init__(self, task, **settings):
        super().__init__(task, **settings)
        self.first = self.make_policy()

    def write_groups(self, group_size=1):
        from textgym.learning.micro_batches import micro_batches

        found = []
        prompts = self.rng.integers(self.env.mdp.n_prompts, size=self.env.num_envs // group_size).repeat(group_size).tolist()
        texts = generate(self.first, self.env.mdp, prompts, self.rng)
        for text, batch in zip(texts, micro_batches(texts, 1, self.device), strict=True):
            with torch.no_grad():
                log_probs = self.policy.evaluate_actions(batch.packed, batch.packed.actions)[1].numpy()
            found.append(type(text)(text.prompt_ids, text.action_ids, log_probs, text.rewards, text.info))
        return found


class WrongSign(ReinforceAgent):
    def penalised_rewards(self, texts):
        rewards, kl = super().penalised_rewards(texts)
        return [-r for r in rewards], kl


FAULTY_AGENTS = {
    "with-dropout": WithDropout,
    "other-temperature": OtherTemperature,
    "other-mask": OtherMask,
    "stale-texts": StaleTexts,
    "wrong-sign": WrongSign,
}

SHORT = {"max_new_tokens": 8, "n_envs": 16}
FAST = {"learning_rate": 3e-3}
LENGTH = {"max_new_tokens": 40, "n_envs": 16, "learning_rate": 2e-3, "kl_coef": 0.0, "reward": "length"}
# name → rule that must find it, agent, task, tokens, settings
FAULTS = {
    "dropout": ("ratio-not-one", "with-dropout", "CopyToken", 96, {}),
    "temperature": ("ratio-not-one", "other-temperature", "CopyToken", 800, {}),
    "mask": ("ratio-not-one", "other-mask", "CopyToken", 800, {}),
    "bfloat16": ("ratio-not-one", "ppo", "ReviewContinuation", 256, {**SHORT, "n_steps": 8, "dtype": "bfloat16"}),
    "stale-texts": ("negative-kl", "stale-texts", "ReviewContinuation", 800, {**SHORT, **FAST, "kl_coef": 0.0}),
    "no-kl-fast": ("entropy-collapse", "grpo", "ReviewContinuation", 1500, {**SHORT, "kl_coef": 0.0, "learning_rate": 1e-2}),
    "millions": ("value-loss-explosion", "ppo", "CopyToken", 3000, {"reward": "1000000*copied"}),
    "one-step-targets": (
        "runaway-values",
        "sac",
        "ReviewContinuation",
        600,
        {**SHORT, "path_lambda": 0.0, "tau": 1.0, "learning_rate": 3e-2},
    ),
    "heavy-term": ("dominating-term", "reinforce", "TokenChain", 200, {"reward": {"chain": 1.0, "length": 100.0}}),
    "length-bonus": ("length-drift", "reinforce", "ReviewContinuation", 4000, LENGTH),
    "one-answer": ("identical-outputs", "reinforce", "CopyToken", 3000, {**FAST, "reward": "regex(pattern=' a')"}),
    "saturated": (
        "reward-saturation",
        "reinforce",
        "ReviewContinuation",
        300,
        {**SHORT, "reward": "clip(scale(human-rating, shift=100), low=-1, high=1)"},
    ),
    "bound-reached": ("reward-saturation", "reinforce", "CopyToken", 3000, {**FAST, "reward": "regex(pattern=' [abcd]')"}),
    "frozen": ("no-learning", "reinforce", "ReviewContinuation", 500, {**SHORT, "learning_rate": 1e-12}),
    "wrong-sign": ("falling-reward", "wrong-sign", "CopyToken", 3000, {**FAST, "n_envs": 64}),
    "diverged": ("stopped", "reinforce", "CopyToken", 500, {"learning_rate": 1e30}),
}
HEALTHY = [
    ("reinforce", "CopyToken", 1500),
    ("ppo", "CopyToken", 3000),
    ("grpo", "TokenChain", 1500),
    ("soft-q", "TokenChain", 1500),
    ("dqn", "CopyToken", 1000),
    ("bc", "ReviewClassification", 128),
    ("expert-iteration", "TokenChain", 1500),
    ("bc", "ReviewContinuation", 3000),
    ("dpo", "ReviewContinuation", 1600),
    ("ppo", "ReviewContinuation", 2400),
]


def config(agent, task, tokens, settings):
    return TrainConfig(
        task,
        agent,
        tokens,
        0,
        {"device": "cpu", **settings},
        evaluations=2,
        validation_prompts=8,
        test_prompts=0,
        checkpoints=0,
        tensorboard=False,
    )


@pytest.fixture(scope="module")
def faulty_runs(tmp_path_factory):
    """Every fault's run: name → directory."""
    agents = installed_plugins()._names["agent"]
    before = dict(agents)

    class Faulty:
        @textgym.hookimpl
        def register_agents(self, register):
            for name, factory in FAULTY_AGENTS.items():
                register(name, factory)

    installed_plugins().register(Faulty())
    folder, found = tmp_path_factory.mktemp("faulty"), {}
    try:
        for name, (_, agent, task, tokens, settings) in FAULTS.items():
            try:
                train(config(agent, task, tokens, settings), folder / name)
            except DivergenceError:
                assert name == "diverged"
            found[name] = folder / name
        yield found
    finally:
        agents.clear()
        agents.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, faulty_runs):
    findings = {f.name: f for f in diagnose(read_run(faulty_runs[fault]))}
    assert FAULTS[fault][0] in findings
    found = findings[FAULTS[fault][0]]
    assert found.tokens >= 0
    assert any(c.isdigit() for c in found.seen)
    assert found.causes
    assert found.advice
    assert "\n" not in found.seen + found.causes + found.advice


@pytest.mark.slow
def test_the_causes_of_a_ratio_are_told_apart(faulty_runs):
    causes = {name: diagnose(read_run(faulty_runs[name]))[0].causes for name in ("dropout", "temperature", "mask", "bfloat16")}
    assert causes["dropout"].startswith("dropout")
    assert "temperature" in causes["temperature"]
    assert "mask" in causes["mask"]
    assert "dropout" not in causes["mask"]
    assert causes["bfloat16"].startswith("rounding in bfloat16")


@pytest.mark.slow
def test_every_rule_has_its_fault(faulty_runs):
    found = {f.name for run in faulty_runs.values() for f in diagnose(read_run(run))}
    assert len(found) == len(RULES)
    assert found == {rule for rule, *_ in FAULTS.values()}


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "task", "tokens"), HEALTHY)
def test_a_healthy_run_is_called_healthy(agent, task, tokens, tmp_path):
    train(config(agent, task, tokens, {}), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert len(run.rows) >= 2
    assert diagnose(run) == []


@pytest.mark.slow
def test_a_run_that_diverged_says_so_until_it_is_resumed(faulty_runs):
    run = read_run(faulty_runs["diverged"])
    assert not run.finished
    assert "learning rate" in run.failure
    with pytest.raises(TextgymError):  # the same again
        resume(faulty_runs["diverged"])
    assert read_run(faulty_runs["diverged"]).failure == run.failure


@pytest.mark.slow
def test_command_prints_three_lines_and_exits_with_1(faulty_runs, tmp_path):
    result = CliRunner().invoke(doctor_command, [str(faulty_runs["heavy-term"])])
    assert result.exit_code == 1
    assert "dominating-term (at " in result.output
    for line in ("  seen:   the reward term 'length' has 99", "  likely: ", "  do:     lower the weight of 'length'"):
        assert line in result.output
    result = CliRunner().invoke(doctor_command, [str(faulty_runs["heavy-term"]), "--json"])
    assert result.exit_code == 1
    assert "dominating-term" in {f["name"] for f in json.loads(result.output)["findings"]}
    train(config("reinforce", "CopyToken", 200, {}), tmp_path / "run")
    result = CliRunner().invoke(doctor_command, [str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "healthy by" in result.output


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(RunDirectoryError, match="no directory of a training run"):
        read_run(tmp_path)
    (tmp_path / "runs" / "ppo-0").mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="holds a comparison: name one of its runs"):
        read_run(tmp_path)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"task"')
    with pytest.raises(RunDirectoryError, match=r"config\.json cannot be read"):
        read_run(tmp_path / "half")
    (tmp_path / "search" / "trials" / "0000" / "seed-0").mkdir(parents=True)
    (tmp_path / "search" / "config.json").write_text('{"task": "CopyToken", "agent": "ppo", "settings": {}, "trials": 6}')
    with pytest.raises(RunDirectoryError, match="holds a search for settings: name one of its runs: trials/0000/seed-0"):
        read_run(tmp_path / "search")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.csv", "tokens,train/loss\n10,0.5\n2\0", r"metrics\.csv (is damaged in line 3|cannot be read)"),
        ("metrics.csv", "tokens,train/loss\n10,0.5\nxx,0.5\n", r"metrics\.csv is damaged in line 3: ValueError: .*'xx'"),
        ("metrics.csv", "tokens,train/loss\n10,half\n", r"metrics\.csv is damaged in line 2: .*'half'"),
        ("metrics.csv", "tokens,train/loss\n10,1,2\n", r"metrics\.csv is damaged in line 2"),
        ("metrics.csv", "loss\n10\n", r"metrics\.csv is damaged in line 2: KeyError: 'tokens'"),
        ("failure.json", '["nothing"]', r"failure\.json is damaged: it should hold a JSON object"),
        ("evaluations.json", '{"reward": 1}', r"evaluations\.json is damaged: it should hold a JSON array"),
        ("evaluations.json", "[{", r"evaluations\.json cannot be read"),
    ],
)
def test_a_damaged_file_is_named(name, text, message, tmp_path):
    (tmp_path / "config.json").write_text('{"task": "CopyToken", "agent": "ppo", "settings": {}}')
    assert diagnose(read_run(tmp_path)) == []
    (tmp_path / name).write_text(text)
    with pytest.raises(RunDirectoryError, match=message):
        read_run(tmp_path)


def test_a_run_without_metrics_has_no_findings(tmp_path):
    train(config("base", "CopyToken", 10, {}), tmp_path / "run")
    assert not (tmp_path / "run" / METRICS_FILE).exists()
    assert diagnose(read_run(tmp_path / "run")) == []
    assert CliRunner().invoke(doctor_command, [str(tmp_path / "run")]).exit_code == 0


def test_rules_bear_missing_and_broken_metrics():
    assert diagnose(RunRecord("ppo", {}, [], [])) == []
    assert diagnose(RunRecord("ppo", {}, [{"tokens": "10"}, {"tokens": "20", "rollout/kl": ""}], [])) == []
    (found,) = diagnose(RunRecord("ppo", {}, [{"tokens": "10", "train/loss": "0.5"}, {"tokens": "20", "train/loss": "nan"}], []))
    assert (found.name, found.tokens) == ("stopped", 20)


def test_values_are_measured_by_the_rewards_where_there_are_any():
    def run(reward, scale, points=()):
        rows = [{"tokens": str(i), "train/target_mean": str(scale), "train/q_loss": str(scale**2)} for i in (10, 20, 30)]
        if reward is not None:
            rows = [{**row, "rollout/ep_rew_mean": str(reward), "rollout/ep_rew_std": str(reward / 3)} for row in rows]
        return [f.name for f in diagnose(RunRecord("ilql", {}, rows, points))]

    assert run(1e6, 1e6) == run(0.5, 0.5) == []
    assert run(0.5, 1e3) == ["runaway-values"]
    assert run(None, 20.0, [{"tokens": 0, "reward": -7.0}]) == [], "an agent that reads"
    grown = [{"tokens": str(i), "train/target_mean": "1.0", "train/v_loss": str(v)} for i, v in ((10, 1.0), (20, 50.0), (30, 3e5))]
    (found,) = diagnose(RunRecord("ilql", {}, grown, []))
    assert (found.name, found.tokens) == ("runaway-values", 30)
    assert "√v_loss reaches 548" in found.seen


@pytest.mark.parametrize("n", range(1, 8))
def test_thirds_of_a_curve(n):
    curve = RunRecord("a", {}, [{"tokens": str(i), "x": str(i)} for i in range(n)], []).curve("x")
    assert isinstance(curve, Curve)
    assert len(curve.first_third) == len(curve.last_third) == math.ceil(n / 3)
    assert curve.first_third[0] == 0
    assert curve.last_third[-1] == n - 1
