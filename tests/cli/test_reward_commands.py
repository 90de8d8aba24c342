"""`textgym reward check`, `textgym reward redteam` and `textgym new-reward`: what they print, their exit codes, a package from nothing."""

import json
import os
import subprocess
import sys

import pytest

from textgym.cli.main import main

PLUGIN = '''"""Two rewards: one that counts a word, one that asks for the reference, word by word and in order."""
import textgym


class Love:
    """How often the text says love."""

    low = 0.0

    def score(self, episodes):
        return [e.continuation.lower().split().count("love") for e in episodes]


class Faithful:
    """Share of the reference's first words that the text has at the same place; 0..1."""

    low, high = 0.0, 1.0
    needs_references = True

    def score(self, episodes):
        scores = []
        for e in episodes:
            if not e.references:
                raise textgym.InvalidArgumentError("faithful: the episode has no references")
            wanted = e.references[0].split()
            scores.append(sum(a == b for a, b in zip(e.text.split(), wanted)) / max(1, len(wanted)))
        return scores


@textgym.hookimpl
def register_rewards(register):
    register("love", Love)
    register("faithful", Faithful)
'''


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def textgym_command(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run `textgym ARGUMENTS` in a new process, which looks for plugins anew."""
    return run("-m", "textgym.cli.main", *arguments, **options)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """One in which the plugin above is installed."""
    target = tmp_path_factory.mktemp("site")
    info = target / "love_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: love-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[textgym]\nlove = love_plugin\n")
    (target / "love_plugin.py").write_text(PLUGIN)
    return {**{k: v for k, v in os.environ.items() if k != "COLUMNS"}, "PYTHONPATH": str(target)}


def test_redteam_names_the_exploit_of_a_gameable_reward_and_exits_with_1(environment, tmp_path):
    files = ["--plot", str(tmp_path / "love.png"), "--json", str(tmp_path / "love.json")]
    done = textgym_command("reward", "redteam", "love", "--task", "ReviewContinuation", *files, env=environment)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "love: can be gamed: 'one word repeated' beats 100.0 % of human texts, more than 95 %"
    assert "love love love" in done.stdout
    assert (tmp_path / "love.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "love.json").read_text())
    assert report["exploits"][0]["name"] == "one word repeated"
    assert report["exploits"][0]["percentile"] == 100.0
    assert len(report["human"]) == 256


def test_redteam_of_a_robust_reward_exits_with_0(environment, tmp_path):
    done = textgym_command("reward", "redteam", "faithful", "--task", "ReviewContinuation", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == "faithful: no exploit beats more than 95 % of human texts"
    assert "each human text is the only reference of its prompt" in done.stdout
    assert list(tmp_path.iterdir()) == []  # a plot only if one is asked for


def in_process(*arguments: str) -> int:
    """Run a command here, which saves the start of an interpreter; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["textgym", *arguments])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def test_the_percentile_is_the_users_choice(capsys):
    arguments = ["reward", "redteam", "vader", "--task", "ReviewContinuation", "--texts", "32", "--prompts", "2", "--search-steps", "0"]
    assert in_process(*arguments, "--fail-above", "100") == 0
    assert in_process(*arguments, "--fail-above", "0") == 1
    assert "can be gamed: " in capsys.readouterr().out.splitlines()[-1]


def test_check_of_a_sound_and_of_an_unsound_reward(environment, tmp_path):
    done = textgym_command("reward", "check", "faithful", "--task", "ReviewContinuation", env=environment)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "faithful: sound: 14 of 14 checks passed"
    assert "needed, and refused in one line where they are missing" in done.stdout
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"prompt": "I", "continuation": f" love {i}"}) for i in range(4)))
    done = textgym_command("reward", "check", "love", "--file", str(texts), "--min-speed", "1e9", env=environment)
    assert done.returncode == 1
    assert "fewer than 1e+09" in done.stdout
    assert done.stdout.splitlines()[-1] == "love: not sound: 13 of 14 checks passed, 1 failed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reward", "check", "humanrating"], "unknown reward 'humanrating': did you mean 'human-rating'"),
        (["reward", "check", "length", "--set", "unt=words"], "did you mean 'unit'"),
        (["reward", "check", "length", "--task", "ReviewContinuatio"], "unknown task 'ReviewContinuatio': did you mean"),
        (["reward", "check", "length", "--task", "x", "--file", "y"], "give --task or --file, not both"),
        (["reward", "check", "length", "--file", "nowhere.txt"], "cannot read nowhere.txt"),
        (["reward", "check", "length", "--min-speed", "-1"], "min_speed must be a number of texts per second, got -1"),
        (["reward", "redteam", "vadr", "--task", "ReviewContinuation"], "unknown reward 'vadr': did you mean 'vader'"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuatio"], "unknown task 'ReviewContinuatio': did you mean"),
        (["reward", "redteam", "vader", "--task", "TokenChain"], "has 0 reference texts in its split 'validation'"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--split", "dev"], "unknown split 'dev'"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--fail-above", "101"], "0 to 100, got 101"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--fail-above", "nan"], "0 to 100, got nan"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--texts", "3"], "at least 8 human texts, got 3"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--seed", "-1"], "--seed must be at least 0"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--plot", "no/where.png"], "there is no folder no"),
        (["reward", "redteam", "vader", "--task", "ReviewContinuation", "--plot", "taken"], "--plot taken: this is a folder, not a file"),
        (["new-reward", "plugins"], "the module textgym_plugins of the reward 'plugins' would hide one that is installed"),
        (["new-reward", "Polite"], "lower-case words joined by hyphens, like 'politeness' or 'no-swearing', got 'Polite'"),
        (["new-reward", "2good"], "got '2good'"),
        (["new-reward", "po_lite"], "got 'po_lite'"),
        (["new-reward", "a--b"], "got 'a--b'"),
        (["new-reward", "../x"], "got '../x'"),
        (["new-reward", ""], "got ''"),
        (["new-reward", "vader"], "the reward 'vader' exists already, from vader (textgym "),
        (["new-reward", "politeness", "--out", "taken"], "taken exists already: remove it or pass --out"),
        (["new-reward", "politeness", "--out", "file/below"], "cannot write file/below"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    assert in_process(*arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]
    assert os.listdir(tmp_path / "taken") == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": 5, "continuation": "x"}, "line 2: prompt must be a text, got 5"),
        ({"continuation": None}, "line 2: continuation must be a text, got None"),
        ({"prompt": "x"}, "line 2: no 'continuation'"),
        ({"continuation": "x", "references": [1]}, "line 2: references must be a text or a list of texts, got [1]"),
        ({"continuation": "x", "metadata": 5}, "line 2: metadata must be an object, got 5"),
    ],
)
def test_a_row_of_a_wrong_type_is_one_line(row, said, tmp_path, capsys):
    file = tmp_path / "texts.jsonl"
    file.write_text("fine\n" + json.dumps(row))
    assert in_process("reward", "score", "vader", str(file)) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_what_is_scored_as_json_can_be_read_and_scored_again(tmp_path, capsys):
    texts = [" a\u2028great\x85film", " a lone \ud800 surrogate", " 😀 مرحبا", "\r\n"]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"prompt": "It is", "continuation": text}, ensure_ascii="\ud800" in text) + "\n" for text in texts))
    assert in_process("reward", "score", "vader", str(file), "--json") == 0
    first = capsys.readouterr().out
    assert [json.loads(line)["continuation"] for line in first.split("\n")[:-1]] == texts
    file.write_text(first)
    assert in_process("reward", "score", "vader", str(file), "--json") == 0
    assert capsys.readouterr().out == first


def test_a_score_that_was_given_up_is_null_in_json(capsys):
    reward = "served(log-prob, timeout=0.00001, retries=0, on_failure=drop)"  # it reads a model first
    assert in_process("reward", "score", reward, "--continuation", "x", "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] is None


@pytest.mark.slow
def test_a_new_reward_is_a_package_that_installs_is_found_trains_and_passes_its_own_tests(tmp_path):
    made = textgym_command("new-reward", "no-swearing", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    package = tmp_path / "textgym-no-swearing"
    files = sorted(str(p.relative_to(package)) for p in package.rglob("*") if p.is_file())
    assert files == ["README.md", "pyproject.toml", "tests/test_textgym_no_swearing.py", "textgym_no_swearing.py"]
    assert not [f for f in files if "$" in (package / f).read_text()]

    target = tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    installed = run(*pip, "--target", str(target), str(package))
    assert installed.returncode == 0, installed.stderr
    environment = {**os.environ, "PYTHONPATH": str(target)}

    listed = textgym_command("list", "rewards", env=environment)
    (line,) = [line for line in listed.stdout.splitlines() if line.split()[:1] == ["no-swearing"]]
    assert "Share of the continuation's words that are in a list of wanted words; 0..1." in line
    assert "[textgym-no-swearing 0.1.0]" in line

    train = ["train", "CopyToken", "--agent", "reinforce", "--reward", "no-swearing", "--tokens", "64", "--set", "kl_coef=0"]
    trained = textgym_command(*train, "--out", str(tmp_path / "run"), env=environment)
    assert trained.returncode == 0, trained.stderr
    assert any("no-swearing" in file.read_text() for file in (tmp_path / "run").glob("*.json"))

    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(package), env=environment, cwd=package)
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
