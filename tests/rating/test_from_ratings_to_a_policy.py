"""From clicks to a policy: two raters judge samples, a reward model is fitted to the export, and an agent is trained by its folder."""

import json

from click.testing import CliRunner

import textgym
from textgym.cli.main import cli
from textgym.rating.collection import Collection
from textgym.rating.samples import make_items
from textgym.rating.store import JudgementStore

LIKED = ("good", "great", "love", "best", "fun", "wonderful", "funny", "beautiful")


def textgym_command(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_ratings_to_a_policy(tmp_path):
    db, judgements, model, run = (tmp_path / name for name in ("j.db", "judgements.jsonl", "model", "run"))
    collection = Collection(samples=120, sources=("base",), task="ReviewContinuation", split="train", max_new_tokens=16)
    store = JudgementStore.create(db, collection, make_items(collection))
    for item in store.items:  # what the page does at every click
        liked = 3 if any(word in item.texts[0].lower().split() for word in LIKED) else -1
        store.add("Ana", item.id, liked)
        store.add("Ben", item.id, liked - 1)
    store.close()
    assert "from 240 judgements by 2 raters" in textgym_command("rate", "--out", db, "--export", judgements)
    assert "best: epoch 1" in textgym_command("reward", "fit", judgements, "--scorer", "tfidf", "--out", model)
    reward = textgym.make_reward(str(model))
    good, plain = reward.score([textgym.Episode("The film", " is great fun."), textgym.Episode("The film", " is of the one.")])
    assert -4 <= plain < good <= 4
    textgym_command("train", "ReviewContinuation", "--agent", "reinforce", "--reward", model, "--tokens", 600, "--out", run)
    result = json.loads((run / "result.json").read_text())
    assert -4 <= result["reward"] <= 4
    assert result["tokens"] >= 600
