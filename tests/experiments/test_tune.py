"""Tuning: search spaces fit their agents, a killed search goes on without loss, what was found is data that agents take."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import textgym
from tests.preloaded import run_function
from textgym.agent import agent_search_space, agent_settings
from textgym.cli.train import train_command
from textgym.cli.tune import table, tune_command, verdict
from textgym.errors import InvalidArgumentError, MissingExtraError, RunDirectoryError
from textgym.experiments import train as train_module
from textgym.experiments.compare import CompareConfig, tuned_settings_of_all, with_tuned
from textgym.experiments.tune import TrialRecord, TuneConfig, Tuned, TunedSettings, search_space_of, tune, tuned_settings_of
from textgym.experiments.tune_report import write_report
from textgym.learning.text_agent import TextAgent
from textgym.plugin_manager import Provenance, installed_plugins
from textgym.rewards.served import Served
from textgym.search_space import Choice, Range
from textgym.tasks import make_task
from textgym.tuned_settings import TunedSettingsFile, tuned_settings_files

ROOT = Path(__file__).resolve().parents[2]
AGENTS = sorted(installed_plugins().registrations("agent"))
SEARCHED = [n for n in AGENTS if agent_search_space(installed_plugins().find("agent", n).factory)]
TUNED = sorted(installed_plugins().registrations("tuned_setting"))


def small(trials=6, **changes):
    settings = {"n_envs": 16, "device": "cpu"}
    return TuneConfig("CopyToken", "reinforce", trials, 128, settings=settings, validation_prompts=16, confirm_seeds=0, **changes)


def trials_of(outcome):
    return [(t.settings, t.state, t.reward, t.tokens) for t in outcome.trials if t.state != "interrupted"]


# --- search spaces ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_the_search_space_of_every_agent_fits_its_settings(name):
    factory = installed_plugins().find("agent", name).factory
    space, settings = agent_search_space(factory), agent_settings(factory)
    for setting, values in space.items():
        assert isinstance(values, (Range, Choice))
        default = settings[setting]
        assert default is None or default in values, f"the default {setting}={default} is outside {values}"
    of_all = {"learning_rate", "kl_coef"}
    assert bool(set(space) - of_all) == bool(getattr(factory, "learns", True)), "an agent that learns has settings of its own to tune"


@pytest.mark.parametrize("name", SEARCHED)
def test_an_agent_takes_its_search_space_with_a_reference_model(name):
    """Where there is one, the KL penalty is searched - but not with agents that take none."""
    task = textgym.Task(
        "T-v0", {"train": [textgym.Prompt("It was", (" good",))]}, reward=lambda e: [0.0] * len(e), expert=lambda *_: " good"
    )
    settings = {"data": "references"} if name == "ilql" else {}
    space = agent_search_space(installed_plugins().find("agent", name).factory)
    chosen = {s: v.values[-1] if isinstance(v, Choice) else v.high for s, v in space.items()}
    assert textgym.make_agent(name, task, device="cpu", **settings, **chosen).reference_model


@pytest.mark.parametrize("name", SEARCHED)
def test_an_agent_takes_the_ends_of_its_search_space(name):
    """On the smallest task, so that the constructor's own checks are met."""
    space = search_space_of(TuneConfig("CopyToken", name, settings={"device": "cpu"})) if name != "bc" else None
    space = space or agent_search_space(installed_plugins().find("agent", name).factory)
    for end in (0, -1):
        chosen = {s: v.values[end] if isinstance(v, Choice) else (v.low, v.high)[end] for s, v in space.items()}
        textgym.make_agent(name, "CopyToken", device="cpu", **chosen)


def test_a_subclass_inherits_adds_and_takes_out():
    class Mine(TextAgent):
        search_space = {"kl_coef": None, "mine": Range(1, 3), "nobody_takes_this": Range(0.0, 1.0)}  # noqa: RUF012

        def __init__(self, task, mine=1, **settings):
            super().__init__(task, **settings)

    assert set(agent_search_space(Mine)) == {"learning_rate", "mine"}
    assert agent_search_space(lambda task, learning_rate=1e-3: None) == {"learning_rate": agent_search_space(Mine)["learning_rate"]}


def test_values_of_a_space():
    assert 2 in Range(1, 3)
    assert 2.5 not in Range(1, 3)
    assert True not in Range(0, 1)
    assert 1 in Range(0.5, 2.0)
    assert None in Choice((None, "a"))
    for bad in (lambda: Range(2, 1), lambda: Range(0.0, 1.0, log=True), lambda: Choice(("a",)), lambda: Choice(("a", object()))):
        with pytest.raises(InvalidArgumentError):
            bad()


def test_what_is_searched():
    space = search_space_of(replace(small(), settings={"learning_rate": 1e-3, "device": "cpu"}))
    assert set(space) == {"baseline", "group_size"}, (
        "fixed settings, and the KL penalty where there is no reference model, are not searched"
    )
    with pytest.raises(InvalidArgumentError, match="'base' has nothing to tune"):
        search_space_of(TuneConfig("CopyToken", "base"))
    with pytest.raises(InvalidArgumentError, match="trials must be at least 1"):
        TuneConfig("CopyToken", "ppo", trials=0)


# --- the search ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nobody interrupted."""
    return tune(small(), tmp_path_factory.mktemp("whole") / "t")


@pytest.mark.slow
def test_a_search_begins_with_the_defaults_and_keeps_every_trial(whole):
    assert len(whole.trials) == 6
    assert whole.trials[0].settings == {"learning_rate": 5e-4, "baseline": "leave-one-out", "group_size": 4}
    assert whole.best.reward == max(t.reward for t in whole.trials if t.reward is not None)
    assert {t.state for t in whole.trials} <= {"complete", "pruned"}
    assert all(t.note for t in whole.trials if t.state == "pruned")
    assert whole.tokens == sum(t.tokens for t in whole.trials) > 6 * 40
    assert whole.trials[0].tokens >= 128
    text = table(whole)
    assert text.splitlines()[0].split()[:4] == ["trial", "state", "reward", "KL"]
    assert sum(line.endswith("best") for line in text.splitlines()) == 1
    assert "no fresh seeds" in verdict(whole)


def tune_and_die(path):
    tune(small(), path, lambda spent, total, note: os.kill(os.getpid(), signal.SIGKILL) if "trial 3" in note else None)


@pytest.mark.slow
def test_a_killed_search_goes_on_without_loss(whole, tmp_path):
    code, said = run_function(tune_and_die, tmp_path / "t")
    assert code == -signal.SIGKILL, said
    outcome = tune(small(), tmp_path / "t")
    assert trials_of(outcome) == trials_of(whole), "the interrupted trial is run again with the same settings"
    interrupted = [t for t in outcome.trials if t.state == "interrupted"]
    assert [(t.number, t.settings) for t in interrupted] == [(2, whole.trials[2].settings)]
    assert interrupted[0].tokens > 0
    assert outcome.tokens == whole.tokens + interrupted[0].tokens, "what it spent is counted"
    more = tune(small(7), tmp_path / "t")
    assert trials_of(more)[:6] == trials_of(whole)
    assert len(trials_of(more)) == 7
    with pytest.raises(RunDirectoryError, match="another search"):
        tune(small(seeds=2), tmp_path / "t")


@pytest.mark.slow
def test_only_validation_prompts_are_looked_at_and_seeds_are_averaged(tmp_path, monkeypatch):
    seen = []
    evaluate = train_module.evaluate

    def watched(agent, split, n_prompts, seed, *rest):
        seen.append((split, seed))
        return evaluate(agent, split, n_prompts, seed, *rest)

    monkeypatch.setattr(train_module, "evaluate", watched)
    outcome = tune(small(1, seeds=2, points=1), tmp_path / "t")
    assert seen == [("validation", 0), ("validation", 1)], "the untrained model is the same in every trial"
    curves = [json.loads((tmp_path / "t" / "trials" / "0000" / f"seed-{s}" / "evaluations.json").read_text()) for s in (0, 1)]
    assert outcome.best.reward == pytest.approx(sum(c[-1]["reward"] for c in curves) / 2)


@pytest.mark.slow
def test_a_policy_too_far_from_its_start_does_not_count(tmp_path):
    settings = {"n_envs": 8, "max_new_tokens": 6, "device": "cpu", "learning_rate": 2e-3}
    config = TuneConfig("ReviewContinuation", "reinforce", 1, 300, settings=settings, max_kl=0.01, points=1, validation_prompts=8)
    message = r"none of 1 trials came to its end with a reward; the first one: KL .* is above 0.01: raise max_kl"
    with pytest.raises(InvalidArgumentError, match=message):
        tune(config, tmp_path / "t")


@pytest.fixture
def scores_no_validation_prompt():
    """The name of a reward that gives up every text of ReviewContinuation's validation split."""
    prompts = {p.text for p in make_task("ReviewContinuation").split("validation")}

    def score(episodes):
        if any(e.prompt in prompts for e in episodes):
            raise OSError("busy")
        return [1.0 for _ in episodes]

    class Plugin:
        @textgym.hookimpl
        def register_rewards(self, register):
            register("busy", lambda: Served(score, retries=0, on_failure="drop"))

    rewards = installed_plugins()._names["reward"]
    before = dict(rewards)
    installed_plugins().register(Plugin())
    yield "busy"
    rewards.clear()
    rewards.update(before)


def test_a_search_whose_reward_gives_up_comes_to_an_end(scores_no_validation_prompt, tmp_path):
    settings = {"reward": scores_no_validation_prompt, "n_envs": 4, "max_new_tokens": 2, "device": "cpu"}
    config = TuneConfig("ReviewContinuation", "reinforce", 2, 8, settings=settings, points=1, validation_prompts=2)
    message = "none of 2 trials came to its end with a reward; the first one: the validation reward is nan: it scored none of the texts$"
    with pytest.raises(InvalidArgumentError, match=message):
        tune(config, tmp_path / "t")


@pytest.mark.slow
def test_command_confirms_with_fresh_seeds_and_writes_what_it_found(tmp_path):
    arguments = ["CopyToken", "--agent", "reinforce", "--trials", "5", "--tokens", "600", "--validation-prompts", "32", "--device", "cpu"]
    arguments += ["--confirm-seeds", "2", "--points", "1", "--set", "baseline=learned", "--out", str(tmp_path / "t")]
    result = CliRunner().invoke(tune_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "with 2 fresh seeds " in result.output
    assert f"found:    {tmp_path / 't' / 'tuned.json'}" in result.output
    page = (tmp_path / "t" / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    found = TunedSettingsFile(tmp_path / "t" / "tuned.json")()
    assert found.name == "reinforce@CopyToken-v0"
    assert found.given == {"baseline": "learned", "device": "cpu"}
    assert found.confirmed["seeds"] == [1000, 1001]
    assert len(found.confirmed["tuned"]["reward"]) == 2
    told = found.confirmed["gain"]["low"] > 0
    assert found.settings == (found.found["best"] if told else {})
    assert ("better than the defaults" in result.output) == told
    textgym.make_agent("reinforce", "CopyToken", **found.given, **found.settings)
    again = CliRunner().invoke(tune_command, arguments, catch_exceptions=False)
    assert again.output.splitlines()[-10:] == result.output.splitlines()[-10:], "a finished search is only read"


def test_a_greedy_writer_is_bounded_above_what_greedy_writing_costs(tmp_path):
    settings = {"n_envs": 4, "max_new_tokens": 4, "device": "cpu", "learning_rate": 1e-5, "kl_coef": 0.1, "updates": 1}
    config = TuneConfig("ReviewContinuation", "dqn", 1, 16, settings=settings, points=1, validation_prompts=8, confirm_seeds=0, max_kl=0.1)
    found = tune(config, tmp_path / "t")
    assert found.best.kl > 0.5  # −log π_ref of the greedy tokens
    assert found.best.kl < found.max_kl < found.best.kl + 0.2


@pytest.mark.parametrize(
    ("seeds", "low", "high", "kl", "words"),
    [
        ([1000, 1001], 0.1, 0.3, [0.4, 0.7], "better than the defaults: "),
        ([1000, 1001], 0.1, 0.3, [0.9, 0.7], "better than the defaults, but with a KL above 0.6: these stay: "),
        ([1000], 0.1, 0.3, [0.1], "not told from the defaults, which stay: "),
        ([1000, 1001], -0.1, 0.3, [0.1, 0.1], "not told from the defaults, which stay: "),
        ([1000, 1001], -0.3, -0.1, [0.1, 0.1], "worse than the defaults, which stay: "),
    ],
)
def test_only_settings_told_to_be_better_within_the_bound_replace_the_defaults(seeds, low, high, kl, words):
    best = TrialRecord(1, {"learning_rate": 0.01}, "complete", 0.5, 0.5, 0.1, 8, "")
    figures = {"reward": [0.5] * len(seeds), "kl": kl}
    confirmed = {"seeds": seeds, "defaults": figures, "tuned": figures, "gain": {"value": (low + high) / 2, "low": low, "high": high}}
    outcome = Tuned(small(), {}, 0.6, [best], best, confirmed)
    assert words in verdict(outcome)
    assert tuned_settings_of(outcome).settings == (best.settings if words.startswith("better than the defaults: ") else {})


def test_without_optuna_one_line_says_which_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'textgym\[tune\]'"):
        tune(small(), tmp_path / "t")
    assert not (tmp_path / "t").exists()


# --- what was found --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TUNED)
def test_shipped_settings_fit_the_agent_and_tell_how_they_were_found(name):
    found = installed_plugins().make("tuned_setting", name, {})
    assert isinstance(found, TunedSettings)
    assert found.name == name
    factory = installed_plugins().find("agent", found.agent).factory
    space = agent_search_space(factory)
    assert all(value in space[setting] for setting, value in found.found["best"].items())
    if found.confirmed:
        told = found.confirmed["gain"]["low"] > 0
        assert found.settings == (found.found["best"] if told else {}), "settings that are not told from the defaults are not shipped"
        assert len(found.confirmed["seeds"]) >= 3
        assert not set(found.confirmed["seeds"]) & set(found.found["seeds"])
    else:
        assert not found.settings
        assert found.found["reward_of_the_best"] == found.found["reward_of_the_defaults"]
    assert found.found["command"].startswith(f"textgym tune {found.task.rpartition('-v')[0]} --agent {found.agent} ")
    assert found.found["split"] == "validation"
    assert {"textgym", "torch", "optuna"} <= set(found.versions)
    agent = textgym.make_agent(found.agent, found.task, tuned=True, device="cpu")
    assert {k: agent.settings[k] for k in found.settings} == dict(found.settings)


class Plugin:
    """Ships settings for reinforce on CopyToken."""

    def __init__(self, folder):
        self.folder = folder

    @textgym.hookimpl
    def register_tuned_settings(self, register):
        for name, file in tuned_settings_files(self.folder).items():
            register(name, file)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    names = installed_plugins()._names["tuned_setting"]
    monkeypatch.setitem(installed_plugins()._names, "tuned_setting", dict(names))
    (tmp_path / "tuned" / "CopyToken-v0").mkdir(parents=True)
    file = tmp_path / "tuned" / "CopyToken-v0" / "reinforce.json"
    TunedSettings("CopyToken-v0", "reinforce", {"learning_rate": 2e-3, "group_size": 8}, "reward", {}, {}).write(file)
    installed_plugins().register(Plugin(tmp_path / "tuned"), Provenance(str(tmp_path)))
    return file


def test_tuned_settings_are_taken_where_none_are_given(shipped, tmp_path):
    agent = textgym.make_agent("reinforce", "CopyToken", tuned=True, group_size=2, device="cpu")
    assert (agent.optimisation.learning_rate, agent.group_size) == (2e-3, 2)
    agent.save(tmp_path / "agent")
    shipped.unlink()  # an agent that was made with them does not need them any more
    assert textgym.load_agent(tmp_path / "agent").optimisation.learning_rate == 2e-3


def test_without_tuned_settings_the_error_says_for_whom_there_are_some(shipped):
    with pytest.raises(
        InvalidArgumentError, match=r"nothing was tuned for agent 'ppo' .*searches for: reinforce.*textgym tune CopyToken-v0 --agent ppo"
    ):
        textgym.make_agent("ppo", "CopyToken", tuned=True)


def test_a_broken_file_is_one_line(shipped):
    shipped.write_text("{}")
    with pytest.raises(InvalidArgumentError, match="must hold agent, "):
        textgym.make_agent("reinforce", "CopyToken", tuned=True)
    shipped.write_text("{")
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        textgym.make_agent("reinforce", "CopyToken", tuned=True)


def test_train_and_compare_take_tuned_settings_below_given_ones(shipped, tmp_path):
    out = str(tmp_path / "run")
    arguments = ["CopyToken", "--agent", "reinforce", "--tuned", "--tokens", "32", "--set", "group_size=4", "--device", "cpu", "--out", out]
    result = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(Path(out, "config.json").read_text())["settings"] == {"device": "cpu", "group_size": 4, "learning_rate": 2e-3}
    tuned = {"expert-iteration": {"learning_rate": 1e-4, "updates": 3}}
    settings = with_tuned({"learning_rate": 5e-4, "ppo.n_epochs": 1}, tuned)
    config = CompareConfig("CopyToken", ("ppo", "expert-iteration"), settings=settings)
    assert config.settings_of("expert-iteration") == {"learning_rate": 5e-4, "updates": 3}
    assert config.settings_of("ppo") == {"learning_rate": 5e-4, "n_epochs": 1}
    assert with_tuned({"expert_iteration.updates": 1}, tuned)["expert_iteration.updates"] == 1


def test_where_a_search_left_the_defaults_they_are_used_and_it_is_said(shipped, tmp_path):
    TunedSettings("CopyToken-v0", "reinforce", {}, "reward", {}, {}).write(shipped)
    assert tuned_settings_of_all("CopyToken", ["reinforce", "ppo"]) == {}
    arguments = ["CopyToken", "--agent", "reinforce", "--tuned", "--tokens", "32", "--device", "cpu", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert "a search found nothing better than the defaults of reinforce: they stay" in result.output


def test_listed_with_what_they_are(shipped):
    from textgym.cli.listing import list_command

    result = CliRunner().invoke(list_command, ["tuned-settings"])
    assert "reinforce@CopyToken-v0" in result.output
    assert "What a search for settings of reinforce on CopyToken-v0 came to." in result.output


def test_report_names_what_was_given(whole, tmp_path):
    write_report(whole, tmp_path / "r.html")
    assert "<code>textgym tune CopyToken --agent reinforce" in (tmp_path / "r.html").read_text()
    assert tuned_settings_of(whole).found["trials"]["interrupted"] == 0
    assert os.path.getsize(tmp_path / "r.html") < 1_000_000
