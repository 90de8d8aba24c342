"""A hardened reward is fooled less by exploits found anew, and agrees with people as before; a guard is part of the reward's folder."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import textgym
from textgym.cli.main import cli
from textgym.reward_modeling.data.judgement_source import load_judgements, sample
from textgym.reward_modeling.fitting.adversarial import HardeningSettings, _correlations, harden
from textgym.reward_modeling.models.guard import Guard, form, skeleton
from textgym.reward_modeling.models.improbability import N_FIGURES, Improbability
from textgym.rewards.redteam import redteam

TASK = "ReviewContinuation"
QUICK = HardeningSettings(rounds=1, attacks=1, prompts=8, measures=1, max_loss=0.05)  # few ratings cannot vouch for less


@pytest.fixture(scope="module")
def judgements():
    return sample(load_judgements("human-ratings"), 400)


@pytest.fixture(scope="module")
def hardened(judgements, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hardened") / "reward"
    return harden(judgements, TASK, folder, settings=QUICK), folder


def test_exploits_found_anew_beat_fewer_human_texts(hardened):
    result, _ = hardened
    assert result.chosen > 0
    assert result.after.mean < result.before.mean - 10
    assert result.after.harm < result.before.harm
    for kind in ("one word repeated", "punctuation and emoji", "prompt copied"):
        assert result.after.beaten[kind] < result.before.beaten[kind] - 15
    for before, after in ((result.before, result.after), (result.rounds[0], result.rounds[result.chosen])):
        assert after.pearson >= before.pearson - QUICK.max_loss


def test_the_folder_gives_back_the_same_scores_and_tells_the_rounds(hardened):
    result, folder = hardened
    reward = textgym.make_reward(str(folder))
    episodes = [
        textgym.Episode("The movie", text) for text in (" was a delight.", " great" * 24, "", " 🙂 naïve", " good, great, fine, best")
    ]
    scores = reward.score(episodes)
    np.testing.assert_array_equal(scores, result.reward.score(episodes))
    np.testing.assert_allclose([reward.score([episode])[0] for episode in episodes], scores, rtol=0, atol=1e-6)
    assert result.reward.guard.trust([episodes[1].text])[0] == 0
    told = json.loads((folder / "reward_model.json").read_text())
    assert told["hardening"]["chosen"] == result.chosen
    assert len(told["hardening"]["rounds"]) == 2
    assert {"guard.json", "guard.safetensors"} <= set(told["files"])
    assert "reviews" in told["sources"]  # the guard's language model: another one would read the texts differently
    (folder / "guard.json").write_text((folder / "guard.json").read_text().replace("the", "teh", 1))
    with pytest.raises(textgym.InvalidArgumentError, match=r"guard\.json was changed"):
        textgym.make_reward(str(folder))


def test_a_guard_sees_form_and_no_content():
    kept = frozenset({"a", "the"})
    assert (
        skeleton("A truly moving film, 3 times!", kept) == skeleton("A simply boring play, 4 times!", kept) == "^ a ~ly ~ing ~ , 0 ~s ! $"
    )
    np.testing.assert_array_equal(form("The plot was dire.", kept), form("The cast was fine.", kept))
    human = [f"the {x} of the {y} is {z}." for x in ("plot", "cast") for y in ("film", "play", "book") for z in ("dull", "fine", "odd")]
    exploits = [f"{x} {y} {x} {y}" for x in ("fine", "good", "best") for y in ("great", "lovely", "superb")]
    guard = Guard.fit(human, exploits, human, ceiling=-1.0)
    assert guard.trust(human).mean() > 0.95
    np.testing.assert_allclose(guard.guarded(["grand neat grand neat"], np.array([3.0])), [-1.0], atol=0.3)
    assert guard.guarded(["grand neat grand neat"], np.array([-2.0]))[0] == -2  # never raises a score


def test_a_language_model_finds_words_in_disorder_improbable(judgements):
    train = [item.text for item in judgements.split("train").items]
    unread = [item.text for item in judgements.split("test").items]
    disordered = [" ".join(np.random.default_rng(len(text)).permutation(text.split())) for text in unread]
    reading = Improbability.counted("reviews", train)
    people, nonsense = reading.of(unread), reading.of(disordered)
    assert people.shape == (len(unread), N_FIGURES)
    assert (people[:, 1] > nonsense[:, 1]).mean() > 0.9  # what a token gains from its context
    fourth = reading.log_probs(["It was a great", "It was a great film"])
    np.testing.assert_allclose(fourth[0][0][:4], fourth[1][0][:4], atol=1e-4)  # beside a longer text as alone
    assert np.isfinite(Improbability.counted("reviews", train).of(["", " ", "🙂", "word " * 400])).all()
    with pytest.raises(textgym.InvalidArgumentError, match=r"counted 3 tokens, but the language model 'reviews' has 8000"):
        Improbability("reviews", np.zeros(3))
    # what the model was trained on is moved to what it was not: a guard leaves unread human texts alone
    guard = Guard.fit(train, disordered[:200], unread[200:], 0.0, improbability=reading, unread=unread[:200])
    assert guard.trust(unread[200:]).mean() > 0.95
    assert guard.trust(disordered[200:]).mean() < 0.6


def test_scores_under_the_ceiling_are_not_read(judgements):
    train = [item.text for item in judgements.split("train").items]
    guard = Guard.fit(train[:200], [text[::-1] for text in train[:200]], train[200:], 0.5)
    asked = []
    guard.trust = lambda texts: (asked.extend(texts), np.zeros(len(texts)))[1]
    np.testing.assert_array_equal(guard.guarded(["a", "b", "c"], np.array([0.4, 0.6, 0.5])), [0.4, 0.5, 0.5])
    assert asked == ["b"]


def test_of_several_red_teams_the_best_of_each_kind_counts(judgements):
    brief = replace(QUICK, guard_model=None, seconds=1e-6)  # time for the first kind only
    one, three = (harden(judgements, TASK, settings=replace(brief, measures=n)) for n in (1, 3))
    found = [redteam(one.reward, TASK, seconds=1e-6, seed=3 + 100 * n).worst for n in range(3)]
    assert len({exploit.percentile for exploit in found}) == 3  # against other human texts
    assert one.rounds[0].beaten == {found[0].name: found[0].percentile}
    assert three.rounds[0].beaten == {found[0].name: max(exploit.percentile for exploit in found)}
    assert three.rounds[0].pearson == one.rounds[0].pearson


def test_thresholds_are_chosen_by_the_pearson_of_resamples():
    rng = np.random.default_rng(0)
    scores, ratings = rng.normal(size=(2, 30)) + rng.normal(size=30)
    draws = rng.multinomial(30, np.full(30, 1 / 30), 20)
    found = _correlations(scores, ratings, draws)
    for drawn, value in zip(draws, found, strict=True):
        rows = np.repeat(np.arange(30), drawn)
        np.testing.assert_allclose(value, np.corrcoef(scores[rows], ratings[rows])[0, 1], rtol=1e-9)
    np.testing.assert_array_equal(_correlations(np.ones(30), ratings, draws), 0)


def test_a_judge_adds_samples_that_it_finds_overrated(judgements):
    judged = []

    def judge(episodes):
        judged.append(len(episodes))
        return np.array([-1.0 if episode.prompt else 1.0 for episode in episodes])  # human texts come without a prompt: all are better

    settings = replace(QUICK, defence="refit", rating=-3.0, prompts=4, samples=4, reorderings=0)
    result = harden(judgements, TASK, settings=settings, judge=judge)
    assert judged[0] == 16
    assert {item.rating for item in result.exploits} > {-3.0}
    assert all(item.source == "adversarial" and item.split == "train" for item in result.exploits)
    assert result.rounds[1].n_exploits == len(result.exploits) > 0
    assert result.reward.guard is None


def test_the_command(tmp_path):
    arguments = ["reward", "harden", "human-ratings", "--task", TASK, "--rounds", "1", "--limit", "200"]
    arguments += ["--guard-model", "none", "--out", str(tmp_path / "r")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "round 1" in result.output
    assert "best-liked words" in result.output
    assert textgym.make_reward(str(tmp_path / "r")).score([textgym.Episode("", "fine")]).shape == (1,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"measures": 0}, "measures must be at least 1, got 0"),
        ({"spared": (0.9, 1.0)}, "spared must be between 0 and 1"),
        ({"defence": "prayer"}, 'defence must be "guard" or "refit"'),
        ({"held_out": ("one word repeted",)}, "did you mean 'one word repeated'"),
    ],
)
def test_bad_settings_are_told_in_one_line(settings, said):
    with pytest.raises(textgym.TextgymError, match=said):
        HardeningSettings(**settings)


def test_pairs_cannot_be_hardened(pairs):
    with pytest.raises(textgym.InvalidArgumentError, match="hardening needs ratings, got pairs"):
        harden(pairs, TASK)


def test_a_red_team_may_try_single_kinds():
    report = redteam("distinct-n", TASK, n_prompts=2, n_texts=16, kinds=("empty text", "one word repeated"))
    assert {exploit.name for exploit in report.exploits} == {"empty text", "one word repeated"}
    assert all(len(exploit.tried) == exploit.n_variants for exploit in report.exploits)
    with pytest.raises(textgym.TextgymError, match="did you mean 'empty text'"):
        redteam("distinct-n", TASK, kinds=("empty txt",))
