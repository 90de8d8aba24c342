"""Families: many names registered as one - found, counted, listed, refused."""

from typing import Any

import pytest

import textgym
from textgym.plugin_manager import PluginManager, Provenance


class Times:
    """The length, times a number."""

    def __init__(self, number: int, offset: float = 0.0) -> None:
        self.number, self.offset = number, offset

    def score(self, episodes: Any) -> list[float]:
        return [self.number * len(e.continuation) + self.offset for e in episodes]


def times(member: str) -> Any:
    def factory(offset: float = 0.0) -> Times:
        return Times(int(member), offset)

    return factory


asked: list[int] = []


def members() -> list[str]:
    asked.append(1)
    return ["1", "2", "10"]


class TimesPlugin:
    @staticmethod
    @textgym.hookimpl
    def register_rewards(register: Any) -> None:
        register("times", textgym.Family(members, times, "The length, times a number"))


@pytest.fixture
def manager() -> PluginManager:
    manager = PluginManager()
    asked.clear()
    manager.register(TimesPlugin, Provenance("times", "times-package", "2.0"))
    return manager


def test_members_are_found_by_name_and_only_then_listed(manager: PluginManager) -> None:
    assert manager.knows("reward", "times:2")
    assert not manager.knows("reward", "timing:2")
    assert not manager.knows("task", "times:2")
    assert dict(manager.registrations("reward")) == {}
    assert list(manager.families("reward")) == ["times"]
    assert asked == []
    found = manager.find("reward", "times:10")
    assert asked == [1]
    assert (found.name, str(found.provenance)) == ("times:10", "times (times-package 2.0)")
    assert manager.make("reward", "times:10", {"offset": 0.5}).score([textgym.Episode("", "abc")]) == [30.5]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("times:11", "unknown reward 'times:11': did you mean 'times:1.*'? known rewards: times:1, times:10, times:2$"),
        ("tmes:2", "unknown reward 'tmes:2': did you mean 'times:2'? known rewards: times:2$"),
        ("times", "'times' is a family of 3 rewards: name one, like 'times:1'"),
        ("times:", "'times' is a family of 3 rewards"),
        ("other", "unknown reward 'other': known rewards: times:..."),
    ],
)
def test_unknown_members_are_one_line_with_the_nearest(manager: PluginManager, name: str, said: str) -> None:
    with pytest.raises(textgym.TextgymError, match=said.replace("?", r"\?")):
        manager.find("reward", name)


def test_an_option_that_a_member_does_not_take_is_refused(manager: PluginManager) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match="reward 'times:2' has no option 'ofset': did you mean 'offset'"):
        manager.make("reward", "times:2", {"ofset": 1})


def refused(manager: PluginManager, name: str, factory: Any) -> str:
    class Second:
        @staticmethod
        @textgym.hookimpl
        def register_rewards(register: Any) -> None:
            register(name, factory)

    with pytest.warns(textgym.PluginWarning) as caught:
        manager.register(Second, Provenance(f"second {len(manager.plugins)}"))
    return str(caught[0].message)


def test_a_name_is_registered_once_as_one_or_as_a_family(manager: PluginManager) -> None:
    assert "'times' is already registered by times (times-package 2.0)" in refused(manager, "times", Times)
    assert "'times' is already registered by" in refused(manager, "times", textgym.Family(members, times, ""))
    assert "must have a name without a colon" in refused(manager, "a:b", textgym.Family(members, times, ""))


def test_a_member_has_a_place_in_the_text_of_a_reward(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgym.rewards.reward.installed_plugins", lambda: manager)
    reward = textgym.make_reward("times:2(offset=1) - 0.5*times:10")
    assert reward.name == "times:2(offset=1) - 0.5*times:10"
    assert reward.score([textgym.Episode("", "abc")]).tolist() == [7.0 - 15.0]
    assert textgym.make_reward("times:2", offset=1).score([textgym.Episode("", "abc")]).tolist() == [7.0]


def test_long_lists_of_names_are_cut() -> None:
    error = str(textgym.UnknownNameError("reward", "x", [f"name-{i:03}" for i in range(200)]))
    assert error.endswith("name-048, and 151 more")
