"""Judgements of made-up texts whose worth is known: every word has a weight."""

import numpy as np
import pytest
import torch

from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair, RatedText

WORTH = {"wonderful": 2.0, "lovely": 1.2, "fine": 0.5, "film": 0.0, "table": 0.0, "river": 0.0, "dull": -0.7, "poor": -1.3, "awful": -2.0}
WORDS = list(WORTH)


def worth(text: str) -> float:
    return float(np.mean([WORTH[word] for word in text.split()]) * 2)


def made_up_texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(2, 7))) for _ in range(n)]


def split_of(i: int) -> str:
    return "validation" if i % 5 == 0 else "train"


@pytest.fixture(scope="session")
def ratings() -> JudgementSet[RatedText]:
    rng = np.random.default_rng(0)
    items = []
    for i, text in enumerate(made_up_texts(200, 0)):
        single = np.clip(worth(text) + rng.normal(size=4) * (0.3 + ("film" in text)), -4, 4)
        aspects = {"length": float(len(text))} if i % 3 else {}
        items.append(
            RatedText(id=str(i), text=text, rating=float(single.mean()), ratings=tuple(single.tolist()), split=split_of(i), aspects=aspects)
        )
    return JudgementSet("ratings", tuple(items), low=-4, high=4)


@pytest.fixture(scope="session")
def labels() -> JudgementSet[LabelledText]:
    names = ("bad", "middling", "good")
    texts = made_up_texts(200, 1)
    items = [
        LabelledText(id=str(i), text=t, label=names[int(np.digitize(worth(t), (-0.5, 0.5)))], split=split_of(i))
        for i, t in enumerate(texts)
    ]
    return JudgementSet("labels", tuple(items), classes=names)


@pytest.fixture(scope="session")
def pairs() -> JudgementSet[PreferencePair]:
    items = []
    for i, (a, b) in enumerate(zip(made_up_texts(300, 2), made_up_texts(300, 3), strict=True)):
        tie = abs(worth(a) - worth(b)) < 0.3
        a, b = (a, b) if worth(a) > worth(b) else (b, a)
        items.append(PreferencePair(id=str(i), prompt="A ", chosen=a, rejected=b, tie=tie, split=split_of(i)))
    return JudgementSet("pairs", tuple(items))


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.manual_seed(0)
