"""Discriminators: loss, gradient, reward forms and absorbing states by hand; fitted ones tell texts apart and are rewards by path."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import textgym
from textgym.cli.main import cli
from textgym.envs.env import TextEnv
from textgym.imitation.discriminator_reward import DiscriminatorReward
from textgym.imitation.fitting import fit_discriminator, held_out_figures, policy_texts
from textgym.imitation.learner import DiscriminatorLearner, DiscriminatorSettings
from textgym.imitation.token_discriminator import TokenDiscriminator
from textgym.lm.language_model import load_language_model
from textgym.policies.generation import GeneratedText
from textgym.reward_modeling.data.judgements import ExpertText, JudgementSet
from textgym.reward_modeling.data.writing import write_judgements
from textgym.reward_modeling.metrics import area_under_curve
from textgym.reward_modeling.models.fitted_reward import FittedReward
from textgym.reward_modeling.reward_forms import absorbing_return, reward_of
from textgym.tokenization import load_vocabulary

HORIZON = 5


def text_of(prompt, actions):
    n = len(actions)
    return GeneratedText(np.array(prompt, np.int64), np.array(actions, np.int64), np.zeros(n, np.float32), np.zeros(n), {})


EXPERT = [text_of([3, 4], [5, 6, 1]), text_of([4], [7, 3, 4, 5, 6])]
POLICY = [text_of([3, 4], [1]), text_of([5], [8, 8, 8, 1]), text_of([4, 4], [9, 9, 9, 9, 9])]


def learner(**settings):
    torch.manual_seed(0)
    chosen = DiscriminatorSettings(**{"width": 8, "trunk": "trained", **settings})
    network = chosen.network(load_language_model("copy-token"))
    made = DiscriminatorLearner(network, chosen, HORIZON, batch_size=4)
    with torch.no_grad():
        for weights in network.query.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
        network.end.fill_(-0.3 / network.absorbing_scale)
    return made


def log_odds_by_hand(network, text):
    """Return q(h(s)) · k(e(a)) of every token, one forward pass per prefix."""
    found = []
    for t, token in enumerate(text.action_ids):
        ids = torch.from_numpy(np.concatenate([text.prompt_ids, text.action_ids[:t]]))[None]
        hidden = network.lm.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        vector = network.lm.model.get_input_embeddings().weight[token]
        hidden, vector = ((v - v.mean()) / torch.sqrt(v.var(unbiased=False) + 1e-5) for v in (hidden, vector))
        found.append((network.query(hidden) * network.key(vector)).sum())
    return torch.stack(found)


@pytest.mark.parametrize(("smoothing", "absorbing"), [(0.0, True), (0.1, True), (0.1, False)])
def test_loss_and_gradient_by_hand(smoothing, absorbing):
    made = learner(label_smoothing=smoothing, absorbing=absorbing)
    network = made.network
    parameters = [p for p in network.parameters() if p.requires_grad]

    def gradient(loss):
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(grads, parameters, strict=True)])

    ours = sum(loss for loss, _ in made.losses(EXPERT, POLICY, np.random.default_rng(0)))
    sides = []
    for texts, right in ((EXPERT, 1 - smoothing), (POLICY, smoothing)):
        odds = [log_odds_by_hand(network, t) for t in texts]
        if absorbing:
            odds += [network.absorbing.expand(HORIZON - len(t.action_ids)) for t in texts]
        d = torch.sigmoid(torch.cat(odds))
        sides.append(-(right * d.log() + (1 - right) * (1 - d).log()).mean())
    by_hand = sides[0] + sides[1]
    assert ours.item() == pytest.approx(by_hand.item(), abs=1e-5)
    a, b = gradient(ours), gradient(by_hand)
    assert float(b.norm()) > 0.01
    assert float((a - b).norm()) <= 1e-5 * max(1.0, float(b.norm()))


def test_a_discriminator_begins_without_an_opinion():
    network = TokenDiscriminator(load_language_model("copy-token"))
    assert all((odds == 0).all() for odds in network.log_odds(EXPERT))
    made = DiscriminatorLearner(network, DiscriminatorSettings(), HORIZON)
    assert sum(loss.item() for loss, _ in made.losses(EXPERT, POLICY, np.random.default_rng(0))) == pytest.approx(2 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", ["r1", "interpolated"])
def test_gradient_penalty_by_finite_differences(kind):
    made = learner(penalty=kind, penalty_coef=0.7, trunk="frozen")
    network = made.network
    *_, (penalty, _) = made.losses(EXPERT, EXPERT if kind == "r1" else POLICY, np.random.default_rng(3))
    points = torch.cat(list(network.read(EXPERT, 100))).detach().double()
    if kind == "interpolated":
        other = torch.cat(list(network.read(POLICY, 100))).detach().double()
        rng, n = np.random.default_rng(3), min(len(points), len(other))
        share = torch.from_numpy(rng.random((n, 1), dtype=np.float32)).double()
        points = share * points[rng.permutation(len(points))[:n]] + (1 - share) * other[rng.permutation(len(other))[:n]]
    network.double()
    steps = 1e-5 * torch.eye(points.shape[1], dtype=torch.float64)

    def judged(inputs):  # `judge` without its cast
        hidden, vectors = inputs.chunk(2, dim=-1)
        return (network.query(hidden) * network.key(vectors)).sum(-1)

    with torch.no_grad():
        gradients = torch.stack([(judged(points + step) - judged(points - step)) / 2e-5 for step in steps], dim=1)
    norms = gradients.square().sum(1)
    by_hand = 0.35 * norms.mean() if kind == "r1" else 0.7 * (norms.sqrt() - 1).square().mean()
    assert penalty.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_spectral_norm_bounds_the_layers_and_a_frozen_trunk_stays():
    made = learner(spectral_norm=True, trunk="frozen", learning_rate=0.05)
    before = {name: value.clone() for name, value in made.network.lm.state_dict().items()}
    rng = np.random.default_rng(0)
    for _ in range(30):
        made.step(EXPERT, POLICY, rng)
    for layer in (made.network.query[0], made.network.query[2], made.network.key):
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.05)
    assert all((before[name] == value).all() for name, value in made.network.lm.state_dict().items())


def test_reward_forms_by_hand():
    odds = torch.tensor([-20.0, -2.0, 0.0, 1.5, 20.0])
    clipped = [-4.0, -2.0, 0.0, 1.5, 4.0]
    d = [1 / (1 + math.exp(-x)) for x in clipped]
    for form, wanted in (
        ("positive", [-math.log(1 - p) for p in d]),
        ("negative", [math.log(p) for p in d]),
        ("log-odds", [math.log(p) - math.log(1 - p) for p in d]),
    ):
        assert reward_of(odds, form, 4.0).tolist() == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(textgym.InvalidArgumentError, match="must be one of positive, negative, log-odds, got 'airl'"):
        textgym.make_agent("gail", "CopyToken", form="airl")


def test_absorbing_return_by_hand():
    assert absorbing_return(0.5, 3) == 1.5
    assert absorbing_return(0.5, 3, 0.9) == pytest.approx(0.5 * (0.9 + 0.81 + 0.729))
    assert absorbing_return(-2.0, 0, 0.9) == 0
    made = learner()
    made.network.end.data.fill_(0.7 / made.network.absorbing_scale)
    plain = DiscriminatorLearner(made.network, DiscriminatorSettings(absorbing=False), HORIZON).rewards(POLICY, "log-odds")
    paid = made.rewards(POLICY, "log-odds", gamma=0.9)
    assert [(a - b).round(5).tolist() for a, b in zip(paid, plain, strict=True)] == [
        [pytest.approx(0.7 * (0.9 + 0.9**2 + 0.9**3 + 0.9**4), abs=1e-5)],
        [0, 0, 0, pytest.approx(0.63, abs=1e-5)],
        [0] * 5,
    ]


def test_area_under_curve():
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert area_under_curve(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert area_under_curve(np.array([0.0, 2.0]), np.array([1.0])) == 0.5


# --- fitted offline ---------------------------------------------------------------------------------------------------------------


def experts(n, seed=0):
    """Return texts of an expert who says "a", "a b" or "a b a" after any prompt."""
    rng = np.random.default_rng(seed)
    items = []
    for i in range(n):
        said, split = " " + " ".join("aba"[: rng.integers(1, 4)]), "validation" if i % 4 == 0 else "train"
        items.append(ExpertText(id=str(i), prompt=str(rng.choice(list("abcdefgh"))), text=said, split=split))
    return JudgementSet("texts", tuple(items))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discriminator") / "d"
    reward, history = fit_discriminator(
        experts(300), folder, model="copy-token", settings=DiscriminatorSettings(learning_rate=5e-3), max_new_tokens=4, epochs=2
    )
    return reward, history, folder


def test_held_out_texts_are_told_apart(fitted):
    _, history, _ = fitted
    best = max(history, key=lambda entry: entry["auc"])
    assert best["auc"] > 0.95
    assert best["token_auc"] > 0.9
    assert best["accuracy"] > 0.85


def test_texts_of_one_origin_are_not_told_apart_held_out():
    made = learner(learning_rate=1e-2)
    made.batch_size = 2048
    one, other, third, fourth = (policy_texts(experts(n), "copy-token", 4, seed) for seed, n in enumerate((32, 32, 256, 256)))
    for _ in range(40):
        figures = made.step(one, other, np.random.default_rng(0))
    assert figures["accuracy"] > 0.6  # learnt by heart
    found = held_out_figures(made.network, third, fourth)
    assert abs(found["auc"] - 0.5) < 0.08
    assert abs(found["accuracy"] - 0.5) < 0.05


def test_the_folder_is_a_reward_by_path_dense_or_not(fitted):
    _, _, folder = fitted
    dense = textgym.make_reward(str(folder))
    good, bad = textgym.Episode("c", " a b a"), textgym.Episode("c", " h h h")
    assert dense.score([good])[0] > dense.score([bad])[0] + 1
    for name, options in (("dense", {}), ("whole", {"dense": False, "form": "positive"})):
        env = TextEnv("CopyToken-v0", reward=textgym.make_reward(str(folder), **options), max_new_tokens=4)
        vocabulary = load_vocabulary("copy-token")
        observation, _ = env.reset(seed=0)
        ids = tuple(observation["input_ids"][observation["attention_mask"] == 1].tolist())
        paid, done, info = [], False, {}
        written = (3, 4, min(vocabulary.eos_ids))
        for token in written:
            _, reward, done, _, info = env.step(token)
            paid.append(reward)
        assert done
        assert (paid[0] != 0) == (name == "dense")
        episode = textgym.Episode(info["prompt"], info["continuation"], ids, written)
        assert sum(paid) == pytest.approx(textgym.make_reward(str(folder), **options).score([episode])[0], abs=1e-4)


def test_absorbing_steps_are_paid_after_the_end_only(fitted):
    reward, _, _ = fitted
    with_end = textgym.Episode("c", " a", (5,), (3, 1))
    without = textgym.Episode("c", " a", (5,), (3,))
    after = float(reward_of(reward.network.absorbing, "log-odds", 10.0))
    plain = DiscriminatorReward(reward.path)
    plain.horizon = 0
    assert reward.score([with_end])[0] - plain.score([with_end])[0] == pytest.approx(2 * after, abs=1e-5)
    assert reward.score([without])[0] == plain.score([without])[0]


def test_a_changed_folder_and_other_tokens_are_one_line(fitted, tmp_path):
    reward, _, folder = fitted
    with pytest.raises(textgym.InvalidArgumentError, match=r"reads the policy's tokens.*use dense=False"):
        reward.token_scorer(1, load_vocabulary("reviews"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(textgym.InvalidArgumentError, match="holds no reward model; choose another folder"):
        fit_discriminator(experts(8), tmp_path / "mine", model="copy-token")
    description = json.loads((folder / "discriminator.json").read_text())
    assert set(description["files"]) >= {"weights.safetensors", "lm/config.json", "lm/tokenizer.json"}
    shutil.copytree(folder, tmp_path / "changed")
    with open(tmp_path / "changed" / "weights.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(textgym.InvalidArgumentError, match=r"weights\.safetensors was changed"):
        textgym.make_reward(str(tmp_path / "changed"))


def test_command_over_tokens_and_whole_texts(tmp_path):
    write_judgements(experts(120), tmp_path / "experts.jsonl")

    def run(*arguments):
        result = CliRunner().invoke(cli, ["reward", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    common = ("discriminate", tmp_path / "experts.jsonl", "--model", "copy-token", "--max-new-tokens", 4)
    output = run(*common, "--epochs", 1, "--set", "learning_rate=0.005", "--set", "label_smoothing=0.1", "--out", tmp_path / "tokens")
    assert "token_auc" in output
    assert "0.5 is chance" in output
    history = json.loads((tmp_path / "tokens" / "history.json").read_text())
    assert (history["finished"], len(history["epochs"])) == (True, 1)
    assert textgym.make_reward(str(tmp_path / "tokens")).score([textgym.Episode("c", " a b a")]).shape == (1,)
    refused = CliRunner().invoke(cli, ["reward", *map(str, common), "--form", "positive", "--out", str(tmp_path / "x")])
    assert "--form is for --whole-texts" in refused.output
    run(*common, "--whole-texts", "tfidf", "--set", "min_texts=1", "--form", "positive", "--out", tmp_path / "positive")
    assert FittedReward(str(tmp_path / "positive")).objective.form == "positive"
    run(*common, "--whole-texts", "tfidf", "--set", "min_texts=1", "--out", tmp_path / "whole")
    whole = textgym.make_reward(str(tmp_path / "whole"))
    assert np.diff(whole.score([textgym.Episode("c", " h g e d"), textgym.Episode("c", " a b a")]))[0] > 0.5
    result = CliRunner().invoke(cli, ["reward", "fit", str(tmp_path / "experts.jsonl"), "--out", str(tmp_path / "x")])
    assert "textgym reward discriminate" in result.output


def test_bad_settings_are_one_line():
    for settings, part in (
        ({"label_smoothing": 0.5}, "label_smoothing must be at least 0 and below 0.5"),
        ({"penalty": "wgan"}, 'penalty must be "", "r1" or "interpolated"'),
        ({"trunk": "cold"}, 'must be "trained" or "frozen"'),
        ({"widht": 3}, "did you mean 'width'"),
    ):
        with pytest.raises(textgym.InvalidArgumentError, match=part):
            textgym.make_agent("gail", "CopyToken", discriminator=settings, device="cpu")
