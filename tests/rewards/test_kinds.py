"""What a reward may be beside a function: torch modules, token vectors, token scorers, declarations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import textgym
from textgym.envs.env import TextEnv
from textgym.lm.language_model import LanguageModel
from textgym.rewards.declaration import declaration_of
from textgym.rewards.session import scorer_of
from textgym.tokenization import load_vocabulary

EPISODES = [textgym.Episode("a b", " c d e", (4, 5), (6, 7, 8)), textgym.Episode("a", " b", (4,), (5,))]


class Judge(torch.nn.Module):
    """A linear score of the text's length, with dropout that must be off."""

    high = 9.0

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.dropout = torch.nn.Dropout(0.5)
        self.gradients: list[bool] = []

    def forward(self, episodes: Sequence[textgym.Episode]) -> torch.Tensor:
        self.gradients.append(torch.is_grad_enabled())
        weight = self.layer.weight
        lengths = torch.tensor([[float(len(e.text))] for e in episodes], device=weight.device, dtype=weight.dtype)
        return self.dropout(self.layer(lengths)).squeeze(1)


def test_a_torch_module_scores_in_evaluation_mode_without_gradients() -> None:
    torch.manual_seed(0)
    judge = Judge().train()
    reward = textgym.make_reward(judge)
    assert reward.score(EPISODES).tolist() == [reward.score([e])[0] for e in EPISODES]
    assert not judge.training
    assert judge.gradients == [False] * 3
    assert declaration_of(reward.terms[0].model).high == 9.0


def test_a_torch_module_goes_to_its_device_with_its_dtype() -> None:
    torch.manual_seed(0)
    exact = textgym.make_reward(judge := Judge()).score(EPISODES)
    halved = textgym.make_reward(judge, device="cpu", dtype="bfloat16")
    assert judge.layer.weight.dtype == torch.bfloat16
    assert halved.score(EPISODES) == pytest.approx(exact, rel=2e-2)
    assert textgym.make_reward(Judge(), device="meta", dtype="float16").terms[0].model.layer.weight.device.type == "meta"  # type: ignore[attr-defined]
    with pytest.raises(textgym.InvalidArgumentError, match="dtype must be the name of a torch dtype"):
        textgym.make_reward(Judge(), dtype="half-ish")
    for wrong in ({"device": "gpu7"}, {"dtype": "int64"}):
        with pytest.raises(textgym.InvalidArgumentError, match="the module cannot run on device") as caught:
            textgym.make_reward(Judge(), **wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_torch_module_on_a_gpu() -> None:
    torch.manual_seed(0)
    exact = textgym.make_reward(judge := Judge()).score(EPISODES)
    reward = textgym.make_reward(judge, device="cuda", dtype="float16")
    assert judge.layer.weight.is_cuda
    assert reward.score(EPISODES) == pytest.approx(exact, rel=1e-2)


def test_a_module_may_have_score_a_coroutine_or_token_vectors() -> None:
    class Scores(Judge):
        def score(self, episodes: Sequence[textgym.Episode]) -> torch.Tensor:
            return torch.full((len(episodes),), 3.0)

    class Waits(Judge):
        async def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
            return [4.0 for _ in episodes]

    class Vectors(Judge):
        def score_tokens(self, episodes: Sequence[textgym.Episode]) -> list[torch.Tensor]:
            return [torch.ones(len(e.continuation_ids)) for e in episodes]

    assert textgym.make_reward(Scores()).score(EPISODES).tolist() == [3, 3]
    assert textgym.make_reward(Waits()).score(EPISODES).tolist() == [4, 4]
    assert textgym.make_reward(Vectors()).score(EPISODES).tolist() == [3, 1]


class TokenIds:
    """Pays each token its id, as vectors of finished episodes."""

    low = 0.0

    def score_tokens(self, episodes: Sequence[textgym.Episode]) -> list[np.ndarray[Any, Any]]:
        return [np.array(e.continuation_ids, np.float32) for e in episodes]


def test_the_score_of_token_vectors_is_their_sum() -> None:
    reward = textgym.make_reward(TokenIds())
    assert reward.name == "TokenIds"
    assert reward.score(EPISODES).tolist() == [21.0, 5.0]
    assert declaration_of(reward.terms[0].model).low == 0.0
    assert declaration_of(reward.terms[0].model).reads_tokens
    env = TextEnv("CopyToken-v0", reward=reward, max_new_tokens=2)
    env.reset(seed=0)
    assert env.step(5)[1] == 0.0
    assert env.step(7)[1] == 12.0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0, 3.0]], "must return 2 vectors for 2 episodes, got 1"),
        ([[1.0, 2.0], [1.0]], r"must return 3 numbers for 3 tokens, got shape \(2,\)"),
        ([[1.0, 2.0, float("nan")], [1.0]], "returned nan for episode 0 of 2"),
    ],
)
def test_token_vectors_that_do_not_fit_are_one_line(vectors: Any, message: str) -> None:
    class Wrong:
        def score_tokens(self, episodes: Sequence[textgym.Episode]) -> Any:
            return vectors

    with pytest.raises(textgym.RewardError, match=message):
        textgym.make_reward(Wrong()).score(EPISODES)


def test_scores_may_be_a_list_of_tensors() -> None:
    scores = [torch.tensor(1.5, requires_grad=True), torch.tensor([2.5], dtype=torch.bfloat16)]
    assert textgym.make_reward(lambda episodes: scores).score(EPISODES).tolist() == [1.5, 2.5]
    uneven = [torch.tensor(1.0, requires_grad=True), torch.ones(2)]
    with pytest.raises(textgym.RewardError, match="must return numbers"):
        textgym.make_reward(lambda episodes: uneven).score(EPISODES)


@pytest.mark.parametrize("when", ["start", "finish"])
def test_a_token_scorer_that_raises_anywhere_is_a_reward_error(when: str) -> None:
    class Breaks:
        def score(self, episodes: Sequence[textgym.Episode]) -> list[float]:
            return [0.0 for _ in episodes]

        def token_scorer(self, n_rows: int, vocabulary: Any) -> "Breaks":
            return self

        def start(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
            if when == "start":
                raise OSError("no memory")

        def step(self, rows: Sequence[int], token_ids: Sequence[int]) -> list[float]:
            return [0.0 for _ in rows]

        def finish(self, rows: Sequence[int]) -> list[float]:
            raise OSError("no memory")

    env = TextEnv("CopyToken-v0", reward=Breaks())

    def play() -> None:
        env.reset(seed=0)
        env.step(4)

    with pytest.raises(textgym.RewardError, match="reward 'Breaks' raised OSError: no memory"):
        play()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"low": 2.0, "high": 1.0}, "must go upwards"),
        ({"low": "small"}, "must be numbers"),
        ({"min_texts_per_second": "fast"}, "must be numbers"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_one_line(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(textgym.InvalidArgumentError, match=message):
        declaration_of(type("Wrong", (), declared)())


# --- log-prob, token by token ----------------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that language models read, one entry a forward pass."""
    counts: list[int] = []
    prefill, decode = LanguageModel.prefill, LanguageModel.decode

    def counted_prefill(self: Any, cache: Any, rows: Any, input_ids: Any) -> None:
        counts.append(input_ids.numel())
        prefill(self, cache, rows, input_ids)

    def counted_decode(self: Any, cache: Any, tokens: Any, columns: Any, width: int) -> Any:
        counts.append(tokens.numel())
        return decode(self, cache, tokens, columns, width)

    monkeypatch.setattr(LanguageModel, "prefill", counted_prefill)
    monkeypatch.setattr(LanguageModel, "decode", counted_decode)
    return counts


def test_log_prob_reads_each_token_once_however_long_the_prefix(read: list[int]) -> None:
    vocabulary = load_vocabulary("reviews")
    scorer: Any = scorer_of(textgym.make_reward("log-prob", dense=True).terms[0].model, 2, vocabulary)
    prompts = vocabulary.encode(["The movie was not what I", "A phone"])
    scorer.start([0, 1], prompts)
    assert read == [2 * (max(map(len, prompts)) - 1)]
    del read[:]
    for step in range(100):  # the cache grows on the way
        scorer.step([0, 1], [100 + step, 300 + step])
    assert read == [2] * 100


def test_log_prob_by_steps_is_that_of_one_pass_when_rows_start_and_end_anywhere() -> None:
    vocabulary = load_vocabulary("reviews")
    model: Any = textgym.make_reward("log-prob", dense=True).terms[0].model
    scorer = model.token_scorer(3, vocabulary)
    rng = np.random.default_rng(0)
    texts = {0: [*vocabulary.encode(["The movie"])], 1: [*vocabulary.encode(["A very very long beginning of a review, which"])], 2: [[7]]}
    prompts = {row: ids[0] for row, ids in texts.items()}
    written: dict[int, list[int]] = {row: [] for row in prompts}
    paid: dict[int, list[float]] = {row: [] for row in prompts}
    ends: list[tuple[list[int], list[int], list[float]]] = []
    scorer.start([0, 1, 2], [prompts[row] for row in range(3)])
    for step in range(90):
        rows = [row for row in range(3) if (step + row) % 3 or row == 1]
        tokens = rng.integers(10, 8000, len(rows)).tolist()
        for row, token, score in zip(rows, tokens, scorer.step(rows, tokens), strict=True):
            written[row].append(token)
            paid[row].append(score)
        if step in (20, 55):
            for row in (0, 2):
                ends.append((prompts[row], written[row], paid[row]))
                prompts[row], written[row], paid[row] = rng.integers(10, 8000, 3 + step // 5).tolist(), [], []
            scorer.start([2, 0], [prompts[2], prompts[0]])
    ends += [(prompts[row], written[row], paid[row]) for row in range(3)]
    assert len(written[1]) == 90
    for prompt, continuation, scores in ends:
        (whole,) = model.score_tokens([textgym.Episode("x", "y", tuple(prompt), tuple(continuation))])
        np.testing.assert_allclose(scores, whole, atol=2e-4)
        assert model.score([textgym.Episode("x", "y", tuple(prompt), tuple(continuation))])[0] == pytest.approx(sum(scores), abs=5e-3)


def test_log_prob_refuses_what_it_cannot_read() -> None:
    model: Any = textgym.make_reward("log-prob", dense=True).terms[0].model
    with pytest.raises(textgym.InvalidArgumentError, match=r"those of 'reviews' .* are not those of 'copy-token'"):
        model.token_scorer(1, load_vocabulary("copy-token"))
    scorer = model.token_scorer(1, load_vocabulary("reviews"))
    scorer.start([0], [[5] * 127])
    for _ in range(2):  # a token is read when the next one is scored
        scorer.step([0], [6])
    with pytest.raises(textgym.InvalidArgumentError, match="a text of 129 tokens exceeds the model's context of 128"):
        scorer.step([0], [6])
