"""Third-party packages, installed for real and met by a fresh interpreter: the good one works, each broken one costs one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHOUT = '''"""A reward from elsewhere."""
{first}
import textgym


class Shout:
    """Share of upper-case letters; 0..1."""

    def score(self, episodes):
        return [sum(c.isupper() for c in e.continuation) / max(1, len(e.continuation)) for e in episodes]


@textgym.hookimpl
def register_rewards(register):
    register("shout", Shout)
'''

REPORT = """
import json, gymnasium as gym, textgym
from textgym.plugin_manager import installed_plugins
plugins = installed_plugins()
found = plugins.find("reward", "shout")
loud = textgym.make_reward("shout").score([textgym.Episode("a", "AbCd"), textgym.Episode("a", "")])
env = gym.make("textgym/CopyToken-v0", reward="shout")
env.reset(seed=0)
_, reward, terminated, truncated, info = env.step(env.action_space.sample())
print(json.dumps({
    "problems": plugins.problems, "provenance": str(found.provenance), "loud": loud.tolist(), "reward": reward,
    "terminated": terminated, "terms": info["reward_terms"], "rewards": list(plugins.registrations("reward")),
}))
"""


TRAIN = """
import json, gymnasium as gym, textgym
from stable_baselines3 import PPO
from textgym.sb3 import CausalLMPolicy
env = gym.make("textgym/ReviewContinuation-v0", reward="shout", max_new_tokens=8)
ppo = PPO(CausalLMPolicy, env, n_steps=64, batch_size=64, n_epochs=1, gamma=1.0, policy_kwargs={"model": "reviews"}, device="cpu", seed=0)
before = [p.detach().clone() for p in ppo.policy.parameters()]
ppo.learn(64)
moved = any(not old.equal(new) for old, new in zip(before, ppo.policy.parameters()))
print(json.dumps({"steps": ppo.num_timesteps, "moved": moved, "reward": env.unwrapped.mdp.reward.name}))
"""


def plant(target: Path, distribution: str, entry_points: dict[str, str], modules: dict[str, str], version: str = "1.0") -> None:
    """Put a package on a path the way an installer would leave it."""
    info = target / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[textgym]\n" + "".join(f"{name} = {value}\n" for name, value in entry_points.items()))
    for name, text in modules.items():
        (target / f"{name}.py").write_text(text)


def run(code: str, target: Path) -> tuple[dict[str, Any], str]:
    """Run code in a fresh interpreter that sees `target`; return what it printed as JSON, and its standard error."""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=target, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package "shout-package" 0.3, built and installed by pip."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "shout_plugin.py").write_text(SHOUT.format(first=""))
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "shout-package"\nversion = "0.3"\n[project.entry-points.textgym]\nshout = "shout_plugin"\n'
        '[tool.setuptools]\npy-modules = ["shout_plugin"]\n'
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_adds_a_reward_that_works_by_name(target: Path) -> None:
    report, errors = run(REPORT, target)
    assert errors == ""
    assert report["problems"] == []
    assert report["provenance"] == "shout (shout-package 0.3)"
    assert report["loud"] == [0.5, 0.0]
    assert (report["reward"], report["terminated"], report["terms"]) == (0.0, True, {"shout": 0.0})


def test_a_stock_algorithm_trains_on_its_reward(target: Path) -> None:
    report, _ = run(TRAIN, target)  # upper-case letters are rare in reviews, but 64 tokens have some
    assert report["steps"] == 64
    assert report["moved"]
    assert report["reward"] == "shout"


def test_each_broken_package_costs_one_line_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "shout_plugin.py").write_text(SHOUT.format(first=""))
    plant(tmp_path, "shout-package", {"shout": "shout_plugin"}, {}, "0.3")
    plant(tmp_path, "raising-package", {"raising": "raising_plugin"}, {"raising_plugin": "raise RuntimeError('no\\nlicence')\n"})
    plant(tmp_path, "exiting-package", {"exiting": "exiting_plugin"}, {"exiting_plugin": "raise SystemExit(1)\n"})
    plant(tmp_path, "missing-package", {"missing": "missing_plugin"}, {})
    plant(tmp_path, "hyphen-package", {"hyphen": "hyphen-plugin"}, {})
    misspelt = "import textgym\n@textgym.hookimpl\ndef register_reward(register):\n    register('never', dict)\n"
    plant(tmp_path, "misspelt-package", {"misspelt": "misspelt_plugin"}, {"misspelt_plugin": misspelt})
    thief = "import textgym\n@textgym.hookimpl\ndef register_rewards(register):\n    register('vader', dict)\n"
    plant(tmp_path, "a-thief-package", {"thief": "thief_plugin"}, {"thief_plugin": thief})  # sorts before "textgym", yet loads after it
    report, errors = run(REPORT, tmp_path)
    lines = {
        "raising (raising-package 1.0)": "failed to import 'raising_plugin': RuntimeError: no licence",
        "exiting (exiting-package 1.0)": "failed to import 'exiting_plugin': SystemExit",
        "missing (missing-package 1.0)": "failed to import 'missing_plugin': ModuleNotFoundError",
        "hyphen (hyphen-package 1.0)": "failed to import 'hyphen-plugin'",
        "misspelt (misspelt-package 1.0)": "did you mean 'register_rewards'?",
        "thief (a-thief-package 1.0)": "'vader' is already registered by vader (textgym ",
    }
    assert len(report["problems"]) == len(lines)
    for plugin, reason in lines.items():
        (line,) = [problem for problem in report["problems"] if plugin in problem]
        assert reason in line
        assert "\n" not in line
        assert errors.count(plugin) == 1
    assert "Traceback" not in errors
    assert report["loud"] == [0.5, 0.0]
    assert report["reward"] == 0.0
    assert "never" not in report["rewards"]


def test_a_plugin_imported_before_textgym_is_registered_all_the_same(target: Path) -> None:
    report, errors = run("import shout_plugin\n" + REPORT, target)
    assert errors == ""
    assert report["problems"] == []
    assert report["provenance"] == "shout (shout-package 0.3)"
    assert report["loud"] == [0.5, 0.0]


def test_a_package_whose_init_imports_textgym_before_its_plugin_module_is_ready(tmp_path: Path) -> None:
    plant(tmp_path, "shout-package", {"shout": "loud_package.shout"}, {})
    (tmp_path / "loud_package").mkdir()
    (tmp_path / "loud_package" / "__init__.py").write_text("import textgym\nCONSTANT = 1\n")
    (tmp_path / "loud_package" / "shout.py").write_text(SHOUT.format(first="from loud_package import CONSTANT"))
    report, errors = run("import loud_package\n" + REPORT, tmp_path)
    assert errors == ""
    assert report["problems"] == []
    assert report["loud"] == [0.5, 0.0]


def test_a_plugin_module_that_another_of_the_package_needs_can_be_imported_first() -> None:
    """Importing it imports textgym, which imports the other ones, which need it: they wait until it is there."""
    code = "import textgym_plugins.human_ratings, textgym; print(textgym.make_task('ReviewClassification').name, len(textgym.make_task('ReviewContinuation').prompts))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ReviewClassification-v0 3\n", "")


def test_a_plugin_that_imports_a_misspelt_name_from_textgym_is_run_once_and_reported(tmp_path: Path) -> None:
    plant(tmp_path, "shout-package", {"shout": "shout_plugin"}, {"shout_plugin": "print('body')\nfrom textgym import misspelt\n"})
    code = "import warnings; warnings.simplefilter('ignore'); import textgym; from textgym.plugin_manager import installed_plugins"
    done = subprocess.run(
        [sys.executable, "-c", code + "; print(installed_plugins().problems)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("body") == 1
    assert "cannot import name 'misspelt'" in done.stdout


def test_of_two_versions_of_a_package_only_the_one_that_imports_see_is_loaded(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    plant(first, "shout-package", {"shout": "shout_plugin"}, {"shout_plugin": SHOUT.format(first="")}, "2.0")
    plant(second, "shout-package", {"shout": "shout_plugin", "dropped-since": "gone_plugin"}, {}, "1.0")
    report, errors = run(f"import sys; sys.path.append({str(second)!r})\n" + REPORT, first)
    assert errors == ""
    assert report["problems"] == []
    assert report["provenance"] == "shout (shout-package 2.0)"
