"""PluginManager with plugins made here: what is registered, what is refused, and that a broken plugin is one line and never fatal."""

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click
import pytest

import textgym
from textgym.plugin_manager import KINDS, PluginManager, Provenance, installed_plugins


def reward_plugin(plugin_name: str, reward: str, factory: Callable[..., Any]) -> type:
    """Return a plugin that registers one reward."""

    @textgym.hookimpl
    def register_rewards(register: Any) -> None:
        register(reward, factory)

    return type(plugin_name, (), {"register_rewards": staticmethod(register_rewards)})


class Loud:
    """Share of exclamation marks.

    More documentation.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score(self, episodes: Any) -> list[float]:
        return [self.scale * e.continuation.count("!") for e in episodes]


class Quiet(Loud):
    """The opposite."""


def refused(manager: PluginManager, plugin: object, provenance: Provenance | None = None) -> str:
    """Register a plugin that must be reported; return the one line."""
    before = len(manager.problems)
    with pytest.warns(textgym.PluginWarning) as caught:
        manager.register(plugin, provenance)
    assert len(caught) == 1
    assert manager.problems[before:] == [str(caught[0].message)]
    assert "\n" not in manager.problems[-1]
    return manager.problems[-1]


def test_a_plugin_is_found_by_name_with_its_provenance() -> None:
    manager = PluginManager()
    manager.register(reward_plugin("LoudPlugin", "loud", Loud), Provenance("loud", "loud-package", "3.1"))
    found = manager.find("reward", "loud")
    assert (found.name, found.kind, found.factory) == ("loud", "reward", Loud)
    assert str(found.provenance) == "loud (loud-package 3.1)"
    assert found.summary == "Share of exclamation marks."
    assert manager.make("reward", "loud", {"scale": 2.0}).scale == 2.0
    assert manager.problems == []
    assert list(manager.plugins.values()) == [found.provenance]


def test_a_plugin_registered_in_code_is_called_by_its_own_name() -> None:
    manager = PluginManager()
    manager.register(reward_plugin("LoudPlugin", "loud", Loud))
    assert str(manager.find("reward", "loud").provenance) == "LoudPlugin"
    instance = PluginManager()
    instance.register(reward_plugin("LoudPlugin", "loud", Loud)())
    assert str(instance.find("reward", "loud").provenance) == "LoudPlugin"


def test_every_kind_has_a_hook_of_its_own() -> None:
    class Everything:
        @staticmethod
        @textgym.hookimpl
        def register_rewards(register: Any) -> None:
            register("a", Loud)

        @staticmethod
        @textgym.hookimpl
        def register_tasks(register: Any) -> None:
            register("b", Loud)

        @staticmethod
        @textgym.hookimpl
        def register_models(register: Any) -> None:
            register("c", Loud)

        @staticmethod
        @textgym.hookimpl
        def register_agents(register: Any) -> None:
            register("d", Loud)

        @staticmethod
        @textgym.hookimpl
        def register_judgements(register: Any) -> None:
            register("e", Loud)

        @staticmethod
        @textgym.hookimpl
        def register_tuned_settings(register: Any) -> None:
            register("f", Loud)

    manager = PluginManager()
    manager.register(Everything)
    found = {kind: list(manager.registrations(kind)) for kind in KINDS}
    assert found == {"reward": ["a"], "task": ["b"], "model": ["c"], "agent": ["d"], "judgement": ["e"], "tuned_setting": ["f"]}


def test_the_second_of_two_equal_names_is_skipped_with_a_line_naming_both() -> None:
    manager = PluginManager()
    manager.register(reward_plugin("First", "loud", Loud), Provenance("first", "one-package", "1.0"))
    line = refused(manager, reward_plugin("Second", "loud", Quiet), Provenance("second", "two-package", "2.0"))
    assert "second (two-package 2.0)" in line
    assert "first (one-package 1.0)" in line
    assert "'loud'" in line
    assert manager.find("reward", "loud").factory is Loud


def test_equal_names_of_different_kinds_do_not_collide() -> None:
    class ModelPlugin:
        @staticmethod
        @textgym.hookimpl
        def register_models(register: Any) -> None:
            register("loud", Quiet)

    manager = PluginManager()
    manager.register(reward_plugin("First", "loud", Loud))
    manager.register(ModelPlugin)
    assert manager.problems == []
    assert manager.find("model", "loud").factory is Quiet


def test_registering_one_plugin_twice_is_reported_once() -> None:
    manager = PluginManager()
    plugin = reward_plugin("Twice", "loud", Loud)
    manager.register(plugin)
    assert "Twice" in refused(manager, plugin)
    assert manager.find("reward", "loud").factory is Loud


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones() -> None:
    manager = PluginManager()
    manager.register(reward_plugin("First", "loudness", Loud))
    manager.register(reward_plugin("Other", "brevity", Loud))
    with pytest.raises(
        textgym.UnknownNameError, match=r"unknown reward 'loudnes': did you mean 'loudness'\? known rewards: brevity, loudness$"
    ):
        manager.find("reward", "loudnes")
    with pytest.raises(textgym.UnknownNameError, match=r"unknown agent 'loudness': known agents: none$"):
        manager.make("agent", "loudness", {})


def test_a_misspelt_hook_is_reported_with_the_right_one_and_nothing_is_registered() -> None:
    class Misspelt:
        @staticmethod
        @textgym.hookimpl
        def register_reward(register: Any) -> None:
            register("loud", Loud)

    manager = PluginManager()
    line = refused(manager, Misspelt)
    assert "Misspelt" in line
    assert "'register_reward'" in line
    assert "did you mean 'register_rewards'?" in line
    assert manager.plugins == {}
    assert not manager.registrations("reward")


def test_a_hook_that_raises_is_reported_and_later_plugins_still_load() -> None:
    class Broken:
        @staticmethod
        @textgym.hookimpl
        def register_rewards(register: Any) -> None:
            register("early", Loud)
            raise OSError("no such file:\nweights.bin")

    manager = PluginManager()
    line = refused(manager, Broken)
    assert "plugin Broken: register_rewards failed: OSError: no such file: weights.bin" in line
    manager.register(reward_plugin("Fine", "loud", Loud))
    assert sorted(manager.registrations("reward")) == ["early", "loud"]


def test_a_hook_that_exits_is_reported() -> None:
    class Exits:
        @staticmethod
        @textgym.hookimpl
        def register_rewards(register: Any) -> None:
            raise SystemExit(3)

    assert "Exits" in refused(PluginManager(), Exits)


def test_a_plugin_without_a_hook_is_reported() -> None:
    class Nothing:
        @staticmethod
        def register_rewards(register: Any) -> None:  # @hookimpl forgotten
            register("loud", Loud)

    manager = PluginManager()
    assert "implements no hook; mark its register_... functions with @textgym.hookimpl" in refused(manager, Nothing)
    assert not manager.registrations("reward")


def test_a_hook_with_a_wrong_parameter_is_reported_and_the_command_line_still_finds_the_others() -> None:
    class WrongParameter:
        @staticmethod
        @textgym.hookimpl
        def register_rewards(registry: Any) -> None:
            registry("loud", Loud)

    class Commands:
        @staticmethod
        @textgym.hookimpl
        def register_commands(cli: Any) -> None:
            @cli.command()
            def shout() -> None:
                """Shout."""

    manager = PluginManager()
    line = refused(manager, WrongParameter)
    assert "WrongParameter" in line
    assert "registry" in line
    manager.register(Commands)
    group = click.Group()
    manager.call_register_commands(group)
    assert list(group.commands) == ["shout"]


def test_a_broken_command_hook_is_reported() -> None:
    class Commands:
        @staticmethod
        @textgym.hookimpl
        def register_commands(cli: Any) -> None:
            raise KeyError("cli")

    manager = PluginManager()
    manager.register(Commands)
    with pytest.warns(textgym.PluginWarning, match="plugin Commands: register_commands failed: KeyError"):
        manager.call_register_commands(click.Group())


@pytest.mark.parametrize(("name", "factory"), [("", Loud), (7, Loud), ("loud", None), ("loud", "Loud")])
def test_a_registration_that_is_not_a_name_and_a_callable_is_reported(name: Any, factory: Any) -> None:
    manager = PluginManager()
    assert "wants a name and a callable" in refused(manager, reward_plugin("Odd", name, factory))
    assert not manager.registrations("reward")


def test_an_option_that_a_factory_does_not_take_is_an_error_that_lists_those_it_takes() -> None:
    manager = PluginManager()
    manager.register(reward_plugin("First", "loud", Loud))
    with pytest.raises(textgym.InvalidArgumentError, match=r"reward 'loud' has no option 'scal': did you mean 'scale'\? options: scale$"):
        manager.make("reward", "loud", {"scal": 1.0})
    manager.register(reward_plugin("Second", "plain", lambda: Loud()))
    with pytest.raises(textgym.InvalidArgumentError, match=r"reward 'plain' has no option 'x': options: none$"):
        manager.make("reward", "plain", {"x": 1})
    manager.register(reward_plugin("Third", "open", lambda **options: options))
    assert manager.make("reward", "open", {"anything": 1}) == {"anything": 1}


def test_the_projects_own_plugins_load_without_a_problem() -> None:
    manager = PluginManager()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manager.discover()
    assert manager.problems == []
    own = [p for p in manager.plugins.values() if p.distribution == "textgym"]
    assert {p.version for p in own} == {version("textgym")}
    for kind in ("reward", "task", "model", "judgement"):
        for name, registration in manager.registrations(kind).items():
            assert registration.summary, f"{kind} {name} is not documented"
    assert installed_plugins() is installed_plugins()
