"""TRL: rewards as its `reward_funcs` - one real step of GRPO - and its reward functions as rewards."""

import asyncio
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.envs.env import TextEnv
from textgym.interop.trl import dataset, from_trl, reward_function
from textgym.rewards import Serving

ONE_LINE = re.compile(r"^[^\n]*$")
EPISODES = [textgym.Episode("The movie", " was great.", metadata={"answer": "yes"}), textgym.Episode("The film", " was bad!")]


class Spy:
    """Keeps what it is shown; the score is the number of references."""

    needs_references = True

    def __init__(self) -> None:
        self.seen: list[textgym.Episode] = []

    def score(self, episodes):
        self.seen += episodes
        return [len(e.references) for e in episodes]


def test_columns_become_references_and_metadata() -> None:
    spy = Spy()
    function = reward_function(spy, references_column="solution")
    scores = function(
        prompts=["a", "b"],
        completions=["c", "d"],
        completion_ids=[[1, 2], [3]],
        solution=["one", ["two", "three"]],
        source=["web", None],
        metadata=['{"level": 2}', None],
        trainer_state=object(),
        log_extra=print,
        log_metric=print,
    )
    assert scores == [1.0, 2.0]
    assert function.__name__ == "Spy"
    assert spy.seen == [
        textgym.Episode("a", "c", (), (1, 2), ("one",), metadata={"source": "web", "level": 2}),
        textgym.Episode("b", "d", (), (3,), ("two", "three"), metadata={"source": None}),
    ]


def test_token_ids_of_trl_s_model_are_not_read_by_another_model() -> None:
    reward = textgym.make_reward("log-prob", dense=True)
    direct = reward.score([textgym.Episode("The movie", " was a delight.")]).tolist()
    function = reward_function(reward)
    assert function(["The movie"], [" was a delight."], completion_ids=[[5, 6]]) == direct
    assert function(["The movie"], [" was a delight."], completion_ids=[[50_000, 6]]) == direct


def test_messages_become_text() -> None:
    spy = Spy()
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}, {"type": "image"}]},
    ]
    completion = [
        {"role": "assistant", "content": "Let me see.", "tool_calls": []},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "4"},
    ]
    reward_function(spy)(prompts=[prompt], completions=[completion], references=["4"])
    assert (spy.seen[0].prompt, spy.seen[0].continuation) == ("Be brief.\n\n2+2?\n\n", "Let me see.\n\n4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompts": ["a"], "completions": ["b"]}, "reward 'Spy' needs reference texts, and there is no column 'references' among none"),
        ({"prompts": ["a"], "completions": ["b", "c"], "references": ["d"]}, "expected one of completions for each of 1 prompts, got 2"),
        ({"prompts": ["a"], "completions": ["b"], "references": []}, "expected one of references for each of 1 prompts, got 0"),
        ({"prompts": [3], "completions": ["b"], "references": ["c"]}, "a prompt is a text or a list of messages, got 3"),
        ({"prompts": ["a"], "completions": [["b"]], "references": ["c"]}, "a message of a completion needs a role"),
        ({"prompts": ["a"], "completions": ["b"], "references": [4]}, "references are a text or a list of texts, got 4"),
        ({"prompts": ["a"], "completions": ["b"], "references": ["c"], "metadata": ["{"]}, "is not JSON"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=ONE_LINE) as caught:
        reward_function(Spy())(**arguments)
    assert said in str(caught.value)


def test_a_text_that_was_given_up_is_none_and_terms_are_logged() -> None:
    class Fussy:
        serving = Serving(batch_size=1, retries=0, on_failure="drop")

        def score(self, episodes):
            if "bad" in episodes[0].continuation:
                raise OSError("busy")
            return [1.5]

    logged: dict[str, float] = {}
    function = reward_function(Fussy())
    prompts, completions = [e.prompt for e in EPISODES], [e.continuation for e in EPISODES]
    assert function(prompts, completions) == [1.5, None]
    both = reward_function("human-rating - 0.5*length(unit='words')")
    assert both.__name__ == "human-rating - 0.5*length(unit='words')"
    scores = both(prompts, completions, log_metric=logged.__setitem__)
    assert scores == textgym.make_reward("human-rating - 0.5*length(unit='words')").score(EPISODES).tolist()
    assert set(logged) == {"reward_terms/human-rating", "reward_terms/length(unit='words')"}


HUMAN_RATING = textgym.make_reward("human-rating")
THERE, BACK = reward_function(HUMAN_RATING), from_trl(reward_function(HUMAN_RATING))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_scores_as_directly_and_there_and_back(pairs: list[tuple[str, str]]) -> None:
    prompts, completions = [p for p, _ in pairs], [c for _, c in pairs]
    direct = HUMAN_RATING.score([textgym.Episode(p, c) for p, c in pairs]).tolist()
    assert THERE(prompts, completions) == direct
    assert BACK.score([textgym.Episode(p, c) for p, c in pairs]).tolist() == direct


# --- from_trl ----------------------------------------------------------------------------------------------------------------------


def shouts(completions, answer=None, **kwargs):
    assert set(kwargs) == {"prompts", "completion_ids", "references", "trainer_state", "log_extra", "log_metric"}
    kwargs["log_metric"]("shouts", 1.0)
    return [float(text.count("!")) for text in completions]


def only_completions(completions):
    return np.array([len(text) for text in completions])


async def slow(prompts, completions, **_):
    await asyncio.sleep(0)
    return [1.0 for _ in completions]


def chatty(completions, **_):
    return [float(len(completion[0]["content"])) for completion in completions]


def sometimes(completions, answer, **_):
    return [1.0 if a is not None else None for a in answer]


def test_a_function_is_passed_what_it_takes() -> None:
    assert from_trl(shouts).score(EPISODES).tolist() == [0.0, 1.0]
    assert from_trl(shouts).name == "shouts"
    assert from_trl(only_completions).score(EPISODES).tolist() == [11.0, 9.0]
    assert from_trl(slow).score(EPISODES).tolist() == [1.0, 1.0]
    assert from_trl(chatty, conversational=True).score(EPISODES).tolist() == [11.0, 9.0]
    assert from_trl(only_completions).score([]).shape == (0,)


def test_none_is_no_score_and_never_a_silent_zero() -> None:
    reward = from_trl(sometimes)
    np.testing.assert_array_equal(reward.score(EPISODES), [1.0, math.nan])
    prompt = textgym.Prompt("The film", metadata={"answer": None})
    env = TextEnv(textgym.Task("Plain-v0", {"train": [prompt]}, "reviews", 1, reward))
    env.reset(seed=0)
    with pytest.raises(textgym.RewardError, match="drop_failed=True"):
        env.step(5)
    env = TextEnv(textgym.Task("Plain-v0", {"train": [prompt]}, "reviews", 1, reward), drop_failed=True)
    env.reset(seed=0)
    assert math.isnan(env.step(5)[1])


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (lambda completions: [1.0], textgym.RewardError, "must return 2 scores for 2 episodes, got 1"),
        (lambda completions: [1.0, math.nan], textgym.RewardError, "returned nan for episode 1 of 2"),
        (lambda completions: ["a", "b"], textgym.RewardError, "must return numbers"),
        (lambda completions: 1 / 0, textgym.RewardError, "raised ZeroDivisionError"),
        (lambda completions, solution: [0, 0], textgym.InvalidArgumentError, "needs the column 'solution'"),
        (3, textgym.InvalidArgumentError, "from_trl takes a reward function, got 3"),
    ],
)
def test_a_function_that_misbehaves_is_one_line(function: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=ONE_LINE) as caught:
        from_trl(function).score(EPISODES)
    assert said in str(caught.value)


# --- with TRL itself ---------------------------------------------------------------------------------------------------------------


def test_a_task_becomes_a_data_set() -> None:
    pytest.importorskip("datasets")
    prompts = textgym.make_task("ReviewContinuation").split("test")
    rows = dataset("ReviewContinuation", "test")
    assert len(rows) == len(prompts)
    function = reward_function(Spy())
    (episode,) = function.episodes([rows[3]["prompt"]], [" x"], **{k: [rows[3][k]] for k in ("references", "metadata")})
    assert (episode.prompt, episode.references, episode.metadata) == (prompts[3].text, prompts[3].references, prompts[3].metadata)
    chat = dataset("ReviewContinuation", "test", conversational=True, n_words=4)
    assert chat[0]["prompt"][0]["role"] == "user"
    assert len(chat[0]["prompt"][0]["content"].split()) == 4


@pytest.mark.slow
def test_one_step_of_grpo_with_two_rewards_one_of_which_drops(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TRL's own imports
        from trl import GRPOConfig, GRPOTrainer
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, set_seed

    set_seed(0)
    from textgym.lm.source import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("reviews"), padding_side="left")
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    before = model.transformer.wte.weight.detach().clone()

    calls: list[int] = []

    class EveryOther:
        """No score for every second text."""

        serving = Serving(batch_size=1, retries=0, on_failure="drop")

        def score(self, episodes):
            calls.append(len(episodes))
            if len(calls) % 2:
                raise OSError("busy")
            assert episodes[0].references
            return [1.0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            learning_rate=1e-2,
            report_to="none",
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[reward_function("human-rating - 0.1*length"), reward_function(EveryOther())],
            args=arguments,
            train_dataset=dataset("ReviewContinuation").select(range(8)),
        )
        trainer.train()
    logged = trainer.state.log_history[0]
    assert math.isfinite(logged["rewards/human-rating - 0.1*length/mean"])
    assert logged["reward_terms/length"] > 0
    assert logged["rewards/EveryOther/mean"] == 1.0  # over the texts that it scored
    assert len(calls) == 4
    assert logged["reward_std"] > 0
    assert not before.equal(model.transformer.wte.weight)
