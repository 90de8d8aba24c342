"""`textgym reward data`: check a file of judgements, say what is in it, write it in another form."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import click

from textgym.errors import InvalidArgumentError


@click.command("data", epilog="Example: textgym reward data ratings.csv --split 0.8,0.1,0.1 --convert ratings.jsonl.gz")
@click.argument("file")
@click.option("--kind", help="ratings, labels, pairs or texts; by default what the fields say.")
@click.option("--split", "fractions", metavar="A,B,C", help="Draw splits anew: shares of train, validation and test, such as 0.8,0.1,0.1.")
@click.option("--seed", default=0, show_default=True, help="Of the splits and of the choice of pairs.")
@click.option("--pairs", "min_gap", type=float, metavar="GAP", help="Turn ratings into preference pairs at least GAP apart.")
@click.option("--ties", "max_tie_gap", type=float, metavar="GAP", help="With --pairs: texts at most GAP apart become ties.")
@click.option("--per-rater", is_flag=True, help="With --pairs: compare what each rater said, rather than means.")
@click.option("--max-pairs", default=10_000, show_default=True, help="Draw so many if there are more.")
@click.option("--classes", "thresholds", metavar="A,B,...", help="Turn ratings into classes at these thresholds.")
@click.option("--drop-words", type=float, metavar="SHARE", help="Add copies of training texts without SHARE of their words.")
@click.option("--mix", type=int, metavar="N", help="Add N texts joined from two training ones each, with the mean of their ratings.")
@click.option(
    "--paraphrase",
    type=float,
    metavar="SHARE",
    help="Add SHARE of the training texts with some words rewritten by the bundled language model.",
)
@click.option(
    "--judge",
    metavar="REWARD",
    help="With --paraphrase: leave out what this reward rates differently from the original, such as human-rating.",
)
@click.option(
    "--convert", "out", metavar="OUT", help="Write to OUT: .jsonl, .csv, .tsv (with .gz), .parquet, or a folder without a suffix."
)
def data_command(
    file: str,
    kind: str | None,
    fractions: str | None,
    seed: int,
    min_gap: float | None,
    max_tie_gap: float | None,
    per_rater: bool,
    max_pairs: int,
    thresholds: str | None,
    drop_words: float | None,
    mix: int | None,
    paraphrase: float | None,
    judge: str | None,
    out: str | None,
) -> None:
    """Check the judgements in FILE and say what they are: ratings, class labels, preference pairs or expert texts.

    The first fault ends it with one line that names the file, the line and the field. What is asked for is done in this order: splits,
    additions to the training judgements, pairs or classes.
    """
    from textgym.reward_modeling.data.convert import ratings_to_classes, ratings_to_pairs
    from textgym.reward_modeling.data.reading import read_judgements
    from textgym.reward_modeling.data.splits import assign_splits, crossing_clusters
    from textgym.reward_modeling.data.writing import write_judgements

    if min_gap is not None and thresholds is not None:
        raise InvalidArgumentError("give --pairs or --classes, not both")
    if min_gap is None and (max_tie_gap is not None or per_rater):
        raise InvalidArgumentError(f"{'--per-rater' if per_rater else '--ties'} says how --pairs are made: give --pairs, too")
    if judge is not None and paraphrase is None:
        raise InvalidArgumentError("--judge judges paraphrases: give --paraphrase, too")
    judgements: Any = read_judgements(file, kind)
    if fractions is not None:
        shares = _numbers("--split", fractions)
        if len(shares) != 3:
            raise InvalidArgumentError(f"--split wants three shares, such as 0.8,0.1,0.1, got {fractions!r}")
        judgements = assign_splits(judgements, dict(zip(("train", "validation", "test"), shares, strict=True)), seed)
    crossing = crossing_clusters(judgements) if any(item.split for item in judgements.items) else []
    judgements = _augmented(judgements, drop_words, mix, paraphrase, judge, seed)
    if min_gap is not None:
        judgements = ratings_to_pairs(judgements, min_gap, max_tie_gap, per_rater, max_pairs, seed)
    if thresholds is not None:
        judgements = ratings_to_classes(judgements, _numbers("--classes", thresholds))
    for name, value in _facts(judgements):
        click.echo(f"{name:18}{value}")
    if crossing:
        ids = " and ".join(crossing[0][:2])
        click.echo(
            f"{'near-duplicates':18}{len(crossing)} clusters lie in several splits, such as that of {ids}; --split keeps them together"
        )
    if out:
        write_judgements(judgements, out)
        click.echo(f"{'written':18}{out}")


def _augmented(judgements: Any, drop_words: float | None, mix: int | None, paraphrase: float | None, judge: str | None, seed: int) -> Any:
    """Return the judgements with what was asked for; each addition is made from the originals alone."""
    from dataclasses import replace

    from textgym.reward_modeling.data.augment import Paraphraser, with_dropped_words, with_mixed_texts, with_paraphrases

    made: list[Any] = []
    if drop_words is not None:
        made.append(with_dropped_words(judgements, drop_words, seed=seed))
    if mix is not None:
        made.append(with_mixed_texts(judgements, mix, seed))
    if paraphrase is not None:
        made.append(with_paraphrases(judgements, Paraphraser(judge=None if judge is None else _scores_by(judge)), paraphrase, seed))
    new = [item for more in made for item in more.items[len(judgements) :]]
    return replace(judgements, items=(*judgements.items, *new))


def _scores_by(reward: str) -> Callable[[Sequence[str]], list[float]]:
    from textgym.episode import Episode
    from textgym.rewards.reward import make_reward

    made = make_reward(reward)
    return lambda texts: [float(score) for score in made.score([Episode("", text) for text in texts])]


def _facts(judgements: Any) -> list[tuple[str, str]]:
    items = judgements.items
    facts = [(judgements.kind, f"{len(items):,}")]
    splits = Counter(item.split for item in items)
    facts.append(
        ("splits", ", ".join(f"{name or 'none drawn'} {splits[name]:,}" for name in ("train", "validation", "test", "") if splits[name]))
    )
    if judgements.kind == "ratings" and items:
        import numpy as np

        ratings = np.array([item.rating for item in items])
        low, high = ("?" if end is None else f"{end:g}" for end in (judgements.low, judgements.high))
        facts.append(("scale", f"{low} to {high}"))
        facts.append(("rating", f"mean {ratings.mean():.3f}, sd {ratings.std():.3f}, {ratings.min():g} to {ratings.max():g}"))
        counts = [len(item.ratings) for item in items if item.ratings]
        if counts:
            without = f"; {len(items) - len(counts):,} texts without" if len(counts) < len(items) else ""
            facts.append(("single ratings", f"{sum(counts):,}, {min(counts)} to {max(counts)} a text{without}"))
        raters = {rater for item in items for rater in item.raters}
        facts.append(("raters", f"{len(raters):,}" if raters else "unknown"))
    if judgements.kind == "labels":
        labels = Counter(item.label for item in items)
        facts.append(("classes", ", ".join(f"{name} {labels[name]:,}" for name in judgements.classes or sorted(labels))))
    if judgements.kind == "pairs":
        facts.append(("ties", f"{sum(item.tie for item in items):,}"))
        facts.append(("with margin", f"{sum(item.margin is not None for item in items):,}"))
        raters = {item.rater for item in items if item.rater}
        facts.append(("raters", f"{len(raters):,}" if raters else "unknown"))
    added = Counter(str(item.metadata["augmented"]) for item in items if "augmented" in item.metadata)
    if added:
        facts.append(("augmented", ", ".join(f"{how} {count:,}" for how, count in added.items())))
    sources = Counter(item.source for item in items if item.source)
    if sources:
        rest = f", and {len(sources) - 8} more" if len(sources) > 8 else ""
        facts.append(("sources", ", ".join(f"{name} {count:,}" for name, count in sources.most_common(8)) + rest))
    prompts = len({item.prompt for item in items if item.prompt})
    facts.append(("prompts", f"{prompts:,}" if prompts else "none"))
    return facts


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(f"{option} wants numbers separated by commas, got {text!r}") from None
