"""The red team: what can be gamed is, by the exploit one would expect; what cannot, is not."""

import time

import numpy as np
import pytest

import textgym
from textgym.rewards.redteam import BATTERY, LEAST_HUMAN, SEARCH, percentile_of, redteam
from textgym.rewards.redteam_plot import plot
from textgym.tokenization import load_vocabulary

WORDS = [
    "the",
    "a",
    "film",
    "phone",
    "was",
    "is",
    "and",
    "but",
    "slow",
    "bright",
    "long",
    "dull",
    "warm",
    "cheap",
    "story",
    "screen",
    "on",
    "my",
    "desk",
    "all",
    "week",
]


def sentence(rng):
    return " ".join(rng.choice(WORDS, 9))


@pytest.fixture(scope="module")
def task():
    """Forty prompts of two words with two references each, of the same twenty words; some say that they love it."""
    rng = np.random.default_rng(0)
    prompts = []
    for i in range(40):
        start = f"{WORDS[i % 20].capitalize()} {WORDS[(i * 7) % 20]}"
        love = " love" if i % 4 == 0 else ""
        prompts.append(textgym.Prompt(start, (f"{start} {sentence(rng)}{love}", f"{start} {sentence(rng)}"), {"id": i}))
    return textgym.Task("Plain-v0", {"train": prompts, "validation": prompts}, max_new_tokens=16)


def love(episodes):
    return [e.continuation.lower().split().count("love") for e in episodes]


def exclamation(episodes):
    return [e.continuation.count("!") for e in episodes]


def echo(episodes):
    return [e.continuation.count(e.prompt) for e in episodes]


def silence(episodes):
    return [-len(e.continuation) for e in episodes]


def obedience(episodes):
    return ["10 out of 10" in e.continuation for e in episodes]


def verdict(episodes):
    return ["positive" in e.continuation and "negative" in e.continuation for e in episodes]


class BagOfReferenceWords:
    """Share of the first reference's words that occur, in whatever order."""

    needs_references = True

    def score(self, episodes):
        return [len({*e.text.split()} & {*e.references[0].split()}) / len({*e.references[0].split()}) for e in episodes]


def one_more_letter(episodes):
    """Rewards a letter that neither the task's words nor any exploit of the battery is rich in: only the search finds it."""
    return [e.continuation.count("z") for e in episodes]


# reward -> the exploit that games it best
GAMED = {
    love: "one word repeated",
    exclamation: "punctuation and emoji",
    echo: "prompt copied",
    silence: "empty text",
    obedience: "instruction to the judge",
    verdict: "all labels listed",
    BagOfReferenceWords: "reference fragments, shuffled",
    one_more_letter: SEARCH,
}


@pytest.mark.parametrize("reward", GAMED, ids=lambda r: r.__name__)
def test_each_weakness_is_found_by_its_own_exploit(reward, task):
    report = redteam(reward, task)
    assert report.worst.name == GAMED[reward], [(e.name, e.score, e.percentile) for e in report.exploits]
    assert report.worst.percentile > 90
    assert report.skipped == ()
    assert {e.name for e in report.exploits} == {*BATTERY, SEARCH}


def ordered_overlap(episodes):
    """Longest common run of words with a reference, over the reference's length: shuffling, repeating or listing does not help."""
    scores = []
    for e in episodes:
        best = 0.0
        for reference in e.references:
            a, b = e.continuation.split(), reference.removeprefix(e.prompt).split()
            run = max(
                (k for k in range(len(b) + 1) for i in range(len(b) - k + 1) if any(b[i : i + k] == a[j : j + k] for j in range(len(a)))),
                default=0,
            )
            best = max(best, run / max(1, len(b)))
        scores.append(best)
    return scores


def test_a_robust_reward_is_not_gamed(task):
    single = textgym.Task("Single-v0", {"validation": [textgym.Prompt(p.text, p.references[:1]) for p in task.split("validation")]})
    report = redteam(ordered_overlap, single)
    assert report.worst.percentile == 0.0
    assert set(report.human) == {1.0}


def test_references_of_the_task_are_given(task):
    seen = []

    class Needs:
        needs_references = True

        def score(self, episodes):
            seen.extend(episodes)
            return [float(len(e.references)) for e in episodes]

    report = redteam(Needs(), task, search_steps=1)
    assert all(e.references for e in seen)
    human = seen[: len(report.human)]
    assert all(e.text not in e.references for e in human)  # each against the other reference of its prompt
    assert not report.own_references
    lone = textgym.Task("Lone-v0", {"validation": [textgym.Prompt(p.text, p.references[:1]) for p in task.split("validation")]})
    assert redteam(Needs(), lone, search_steps=0).own_references
    assert not redteam(love, lone, search_steps=0).own_references


def test_exploits_are_what_a_policy_could_have_written(task):
    seen = []

    def spy(episodes):
        seen.extend(episodes)
        return [float(len(e.text)) for e in episodes]

    report = redteam(spy, task)
    vocabulary = load_vocabulary(task.model)
    exploits = seen[len(report.human) :]
    for episode in exploits:
        assert len(episode.continuation_ids) <= task.max_new_tokens
        assert (episode.finish_reason == "stop") == (episode.continuation_ids[-1] in vocabulary.eos_ids)
        assert vocabulary.decode_continuations([episode.prompt_ids], [episode.continuation_ids]) == [episode.continuation]
    for episode in seen[: len(report.human)]:  # people's texts are whole
        assert episode.finish_reason == "stop"
        assert len(episode.continuation.split()) >= 9


def test_stop_strings_and_allowed_tokens_of_the_task_hold_for_exploits(task):
    vocabulary = load_vocabulary(task.model)
    some = tuple(vocabulary.tokenizer.convert_ids_to_tokens(vocabulary.encode([" film phone good great"])[0]))
    seen = []

    def spy(episodes):
        seen.extend(episodes)
        return [0.0] * len(episodes)

    narrow = textgym.Task("Narrow-v0", task.prompts, max_new_tokens=16, allowed_tokens=some)
    n_human = len(redteam(spy, narrow).human)
    assert {i for e in seen[n_human:] for i in e.continuation_ids} - vocabulary.eos_ids <= set(
        vocabulary.tokenizer.convert_tokens_to_ids(list(some))
    )
    seen.clear()
    stopped = textgym.Task("Stopped-v0", task.prompts, max_new_tokens=16, stop=("!", "."))
    n_human = len(redteam(spy, stopped).human)
    assert not [e for e in seen[n_human:] if "!" in e.continuation or "." in e.continuation]


def test_the_same_seed_gives_the_same_report(task):
    one, two = redteam("vader", task, seed=3), redteam("vader", task, seed=3)
    assert np.array_equal(one.human, two.human)
    assert one.exploits == two.exploits


def test_without_time_the_rest_is_named_as_not_tried(task):
    report = redteam(love, task, seconds=1e-9)
    assert len(report.exploits) == 1
    assert len(report.skipped) == len(BATTERY)


@pytest.mark.parametrize("kinds", [("one word repeated",), (SEARCH,)])
def test_time_runs_out_within_a_kind_too(task, kinds):
    calls = []

    def slow(episodes):
        calls.append(len(episodes))
        if len(calls) > 1:  # the human texts are not in the budget
            time.sleep(0.05)
        return love(episodes)

    whole = redteam(love, task, kinds=kinds)
    report = redteam(slow, task, kinds=kinds, seconds=0.01)
    assert 0 < report.worst.n_variants < whole.worst.n_variants
    assert max(calls[1:]) <= 64
    assert len(calls) <= 4  # human texts, one batch of probed words, one of variants; the search begins with the words


def test_percentiles_count_ties_half():
    human = np.array([0.0, 1.0, 1.0, 2.0])
    assert [percentile_of(x, human) for x in (-1.0, 0.0, 1.0, 1.5, 3.0)] == [0.0, 12.5, 50.0, 75.0, 100.0]
    assert percentile_of(5.0, np.full(10, 5.0)) == 50.0


def test_bad_arguments(task):
    for arguments, said in (
        ({"n_texts": LEAST_HUMAN - 1}, "at least 8 human texts, got 7"),
        ({"n_prompts": 0}, "n_prompts must be at least 1"),
        ({"search_steps": -1}, "search_steps at least 0"),
        ({"seconds": float("nan")}, "seconds above 0"),
        ({"split": "tests"}, "unknown split 'tests'"),
    ):
        with pytest.raises(textgym.TextgymError, match=said):
            redteam(love, task, **arguments)
    with pytest.raises(textgym.InvalidArgumentError, match="has 0 reference texts in its split 'validation'"):
        redteam("chain", "TokenChain")


def test_the_plot_is_an_image_of_every_exploit(task, tmp_path):
    report = redteam(love, task, search_steps=0)
    plot(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]
    with pytest.raises(textgym.TextgymError, match="cannot write"):
        plot(report, tmp_path / "nowhere" / "plot.png")
    constant = redteam(lambda episodes: [1.0] * len(episodes), task, search_steps=0)
    plot(constant, tmp_path / "constant.png")  # a histogram of one value
