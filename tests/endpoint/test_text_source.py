"""A served model as a writer: what it is asked, how its text joins the prompt, and what becomes of it as an agent."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym.cli.compare import table
from textgym.cli.options import settings_from
from textgym.envs.build import build_mdp
from textgym.errors import EndpointError
from textgym.experiments.compare import CompareConfig, compare
from textgym.experiments.report import write_report
from textgym.policies.generation import generate, replay
from textgym.text_source import LLMTextSource, as_continuation

from .conftest import body, said

PROMPTS = ["The movie was", "This camera", "I bought it"]


def source(server, **options):
    return LLMTextSource(server.base_url, "m", "none", **{"backoff": 0.01, "retries": 2, **options})


def agent(server, **settings):
    given = {"base_url": server.base_url, "served_model": "m", "api_key": "none", "n_envs": 2, "device": "cpu", "max_new_tokens": 6}
    return textgym.make_agent("llm", "ReviewContinuation", **{**given, **settings})


# --- texts ---------------------------------------------------------------------------------------------------------------------------


def test_texts_come_back_in_order_each_asked_for_with_its_own_seed(server):
    server.by_request = lambda request: said(f"about {request['messages'][1]['content'][-3:]} {request['seed']}")
    assert source(server, temperature=0.3).generate(PROMPTS, max_tokens=40, seed=7) == [
        " about was 7",
        " about era 8",
        " about it 9".replace("it", " it"),
    ]
    assert {(r["max_tokens"], r["temperature"]) for r in server.requests} == {(40, 0.3)}
    assert all("at most 30 words" in r["messages"][0]["content"] for r in server.requests)


def test_a_base_model_continues_by_itself(server):
    server.replies = [said(" fine\n")]
    assert source(server, interface="completion").generate(["The movie was"]) == [" fine\n"]
    assert server.requests[0]["prompt"] == "The movie was"
    assert "seed" not in server.requests[0]


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("The movie", "was fun.", " was fun."),
        ("The movie ", "was fun.", "was fun."),
        ("The movie", " was fun.\n", " was fun."),
        ("The movie", "The movie was fun.", " was fun."),
        ("The movie", "... was fun.", "... was fun."),
        ("The movie", "The movie", ""),
        ("The movie", "", ""),
        ("", "Fun.", "Fun."),
    ],
)
def test_how_an_answer_joins_its_prompt(prompt, answer, text):
    assert as_continuation(prompt, answer) == text


@given(st.text(), st.text())
def test_any_answer_joins_any_prompt(prompt, answer):
    text = as_continuation(prompt, answer)
    assert text == text.rstrip()
    assert text.strip() in answer


def test_a_failure_names_server_and_prompt(server):
    server.replies = [body("busy", 503)]
    with pytest.raises(EndpointError, match=r"no text for the prompt 'This camera': .* answered 503: busy \(tried 3 times\)"):
        source(server).generate(["This camera"])
    assert len(server.requests) == 3
    server.replies = [body("who?", 404)]
    with pytest.raises(EndpointError, match=r"answered 404: who\? \(tried 1 time\)"):
        source(server).generate(["This camera"])


@pytest.mark.parametrize(
    ("options", "reason"), [({"interface": "speech"}, "interface must be"), ({"temperature": -1}, "temperature must be")]
)
def test_wrong_options_are_refused(server, options, reason):
    with pytest.raises(textgym.InvalidArgumentError, match=reason):
        source(server, **options)


def test_one_text_is_no_list(server):
    with pytest.raises(textgym.InvalidArgumentError, match=r"pass \['The movie'\]"):
        source(server).generate("The movie")


# --- replayed through the environment ------------------------------------------------------------------------------------------------


def test_replaying_what_a_policy_wrote_gives_the_same_episodes():
    base = textgym.make_agent("base", "ReviewContinuation", n_envs=4, device="cpu", max_new_tokens=12)
    mdp = build_mdp("ReviewContinuation", 4, max_new_tokens=12)
    indices = list(range(10))
    written = generate(base.policy, mdp, indices, np.random.default_rng(0))
    again = replay(mdp, indices, [t.info["continuation"] for t in written])
    for first, second in zip(written, again, strict=True):
        assert first.info["continuation"] == second.info["continuation"]
        assert first.rewards.sum() == second.rewards.sum()
        assert len(second.action_ids) <= 12
        assert np.isnan(second.log_probs).all()


def test_a_long_text_is_cut_a_short_one_ends_and_what_cannot_be_said_is_left_out():
    mdp = build_mdp("ReviewContinuation", 2, max_new_tokens=5)
    end = min(mdp.vocabulary.eos_ids)
    long, short, empty, marked = replay(mdp, [0, 1, 2, 3], [" good" * 50, " good", "", " good<|endoftext|><pad> good"])
    assert (len(long.action_ids), long.info["finish_reason"], long.info["continuation"]) == (5, "length", " good" * 5)
    assert (short.action_ids[-1], short.info["finish_reason"], short.info["continuation"]) == (end, "stop", " good")
    assert (empty.action_ids.tolist(), empty.info["continuation"]) == ([end], "")
    assert marked.info["continuation"] == " good good"


# --- as an agent -----------------------------------------------------------------------------------------------------------------------


def test_the_agent_writes_learns_nothing_and_comes_back_from_disk(server, tmp_path):
    server.replies = [said("great fun")]
    first = agent(server)
    assert first.generate(["The movie was"], seed=0) == ["The movie was great fun"]
    assert server.requests[0]["max_tokens"] == 12
    first.generate(["The movie was"])  # the most probable text
    assert (server.requests[0]["temperature"], server.requests[1]["temperature"]) == (1.0, 0.0)
    assert first.learn(100).n_tokens == 100
    first.save(tmp_path / "agent")
    second = textgym.load_agent(tmp_path / "agent")
    assert second.n_tokens == 100
    assert second.generate(["This camera"], seed=0) == ["This camera great fun"]


def test_a_key_is_not_stored(server):
    with pytest.raises(textgym.InvalidArgumentError, match="ITS_NAME") as caught:
        agent(server, api_key="sk-secret")
    assert "sk-secret" not in str(caught.value)


def test_an_address_is_needed():
    with pytest.raises(textgym.InvalidArgumentError, match="base_url must be an address"):
        textgym.make_agent("llm", "ReviewContinuation")


@pytest.mark.slow
def test_compared_with_a_policy(server, tmp_path):
    server.replies = [said("a wonderful, delightful film that I love.")]
    extra = (f"llm.base_url={server.base_url}", "llm.served_model=m", "llm.api_key=none")
    settings = settings_from(extra, max_new_tokens=8, n_envs=2, device="cpu")
    config = CompareConfig("ReviewContinuation", ("llm",), 1, 20, settings, evaluations=1, validation_prompts=2, test_prompts=8)
    comparison = compare(config, tmp_path / "c", n_workers=1)
    assert [pair.verdict for pair in comparison.pairs] == ["llm is better than base"]
    write_report(comparison, tmp_path / "c" / "report.html")
    assert "nan" in table(comparison)  # the KL
    result = json.loads((tmp_path / "c" / "runs" / "llm-0" / "result.json").read_text())
    assert math.isnan(result["kl"])
    assert math.isfinite(result["perplexity"])
    assert all("wonderful" in continuation for _, continuation in result["texts"])


def test_a_setting_for_an_agent_that_is_not_there():
    with pytest.raises(textgym.InvalidArgumentError, match=r"'lmm\.base_url' is for an agent that is not compared"):
        CompareConfig("ReviewContinuation", ("llm",), settings={"lmm.base_url": "x"})
    config = CompareConfig("ReviewContinuation", ("llm", "best-of-n"), settings={"reward": "vader", "best_of_n.reward": "length"})
    assert config.settings_of("llm") == {"reward": "vader"}
    assert config.settings_of("best-of-n") == {"reward": "length"}


@pytest.mark.slow
def test_a_real_model_writes(smollm2):
    base_url, model = smollm2
    for interface in ("chat", "completion"):
        writer = LLMTextSource(base_url, model, "none", interface=interface, workers=1, retries=0)
        (text,) = writer.generate(["The capital of France is"], max_tokens=8, temperature=0.0)
        assert text.strip()
    assert "Paris" in text
