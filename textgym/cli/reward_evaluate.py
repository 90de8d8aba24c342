"""`textgym reward evaluate`: how well a reward agrees with human judgements."""

from pathlib import Path
from typing import Any, cast

import click

from textgym.cli.console import console
from textgym.cli.options import check_page, settings_from
from textgym.errors import InvalidArgumentError


@click.command("evaluate", epilog="Example: textgym reward evaluate human-rating human-ratings --out report.html")
@click.argument("reward")
@click.argument("data")
@click.option("--split", default="test", show_default=True, help='The part of the data to use; "" for all of it.')
@click.option(
    "--baselines", default="vader", show_default=True, help="Rewards to compare with, by name, beside the number of words and a constant."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write an HTML report to this file.")
@click.option(
    "--learning-curve", "sizes", metavar="N,N,...", help="Also refit the model to so many training judgements of DATA each, and measure it."
)
@click.option("--draws", default=3, show_default=True, help="Draws of training judgements for each point of the learning curve.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
def evaluate_command(
    reward: str, data: str, split: str, baselines: str, out: Path | None, sizes: str | None, draws: int, extra: tuple[str, ...]
) -> None:
    """Compare REWARD with the human judgements in DATA.

    REWARD is a name, a text such as 'human-rating - 0.5*repetition' or the folder of a fitted model; DATA a file of ratings, class labels or
    preference pairs, or "human-ratings", the bundled ones. A fitted model is also measured without its calibration, its length debiasing
    and its guard, and an ensemble beside one of its members.
    """
    import numpy as np

    from textgym.reward_modeling.data.judgement_source import load_judgements, undeclared_order
    from textgym.reward_modeling.evaluation.evaluation import evaluate
    from textgym.reward_modeling.evaluation.learning_curve import learning_curve
    from textgym.reward_modeling.evaluation.report import shown, write_evaluation
    from textgym.reward_modeling.models.abilities import Abilities, abilities_of, fitted_model
    from textgym.rewards.reward import make_reward

    check_page(out)
    made = make_reward(reward, **settings_from(extra))
    fitted = fitted_model(made)
    if sizes is not None and fitted is None:
        raise InvalidArgumentError(f"--learning-curve needs a model of `textgym reward fit`, {reward!r} is none")
    points = _numbers(sizes) if sizes is not None else []
    everything = judgements = load_judgements(data)
    if split:
        judgements = judgements.split(cast("Any", split))  # any text: an unknown one finds nothing
        if not judgements.items:
            raise InvalidArgumentError(
                f"{data} has no judgement of the split {split!r}: draw splits before fitting by: textgym reward data {data} --split 0.8,0.1,0.1 "
                "--convert split.jsonl, then fit and evaluate on split.jsonl; --split '' takes all, training texts too"
            )
    _warn_of_training_texts(reward, fitted, everything, judgements)
    able = abilities_of(made)
    if not able.classes and (order := undeclared_order(judgements)) is not None:
        click.echo(order)
    others = {name: abilities_of(make_reward(name)) for name in baselines.split(",") if name and name != reward}
    others["words"] = Abilities(lambda episodes: np.array([float(len(episode.text.split())) for episode in episodes]), low=0.0)
    constant = _usual_rating(everything) if everything.kind == "ratings" else 0.0
    others["constant"] = Abilities(lambda episodes: np.full(len(episodes), constant))
    found = evaluate(reward, able, judgements, others)
    from rich.table import Table

    grid = Table(title=f"{reward} on {found.n:,} {found.kind} of {data}" + (f", {split} split" if split else ""))
    for title in ("figure", reward, *found.baselines):
        grid.add_column(title, justify="left" if title == "figure" else "right")
    for name, estimate in found.figures.items():
        grid.add_row(name, shown(estimate), *(shown(figures[name]) for figures in found.baselines.values()))
    console().print(grid)
    if found.kind == "ratings" and found.reliability is None:
        click.echo(
            f"{reward} ranges from {able.low:g} to {able.high:g}, so it is no rating on the scale of {data}: what takes it for one is left out"
        )
    if found.ceiling:
        click.echo(
            f"people against people: one human {found.ceiling['one human']:.3f}, split-half {found.ceiling['split-half']:.3f}; a perfect model "
            f"would reach {found.ceiling['reachable']:.3f} (Pearson)"
        )
    if found.reliability is not None:
        click.echo(f"expected calibration error: {found.reliability.error:.3f}")
    if found.uncertainty is not None:
        check = found.uncertainty
        click.echo(f"uncertainty ({check.kind}) and error: rank correlation {shown(check.correlation)}")
        click.echo("mean error by fifth of uncertainty: " + ", ".join(f"{error:.3f}" for error in check.group_error))
        kept = ", ".join(f"{check.risk_at(share):.3f} at {share:.0%}" for share in (1.0, 0.8, 0.6, 0.4, 0.2))
        click.echo(f"mean error by coverage: {kept}")
    curve = None
    if fitted is not None and points:
        from textgym.cli.progress import progress_bar

        with progress_bar("learning curve", "fits") as show:
            curve = learning_curve(fitted, everything, points, draws, split or "test", show=show)
        for size, estimate in zip(curve.sizes, curve.estimates, strict=True):
            click.echo(f"{size:>8,} training judgements: {curve.figure} {shown(estimate)}")
    if out is not None:
        write_evaluation(found, out, f"{data}, {split} split" if split else data, curve)
        click.echo(f"report: {out}")


def _warn_of_training_texts(reward: str, fitted: Any, everything: Any, judgements: Any) -> None:
    """Say how many of the judgements a fitted model was fitted on."""
    from textgym.reward_modeling.training_texts import ids_hash, n_known

    if fitted is None:
        return
    n = n_known(judgements.items, fitted.training_texts)
    recorded = fitted.description.get("judgements", {}).get("train_ids_sha256")
    if not fitted.training_texts and recorded == ids_hash(everything.split("train").items):  # an older model tells no more
        n = len(judgements.split("train"))
    if n:
        click.echo(
            f"warning: {n:,} of the {len(judgements):,} judgements are of texts that {reward} was fitted on: figures on them say nothing of new "
            "texts",
            err=True,
        )


def _usual_rating(judgements: Any) -> float:
    """Return what one would guess without reading: the mean training rating, else the middle of the scale."""
    training = [item.rating for item in judgements.split("train").items]
    if training:
        return float(sum(training) / len(training))
    ratings = [item.rating for item in judgements.items]
    low = min(ratings) if judgements.low is None else judgements.low
    return float((low + (max(ratings) if judgements.high is None else judgements.high)) / 2)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise InvalidArgumentError(f"--learning-curve takes numbers of judgements, such as 250,500,1000, got {text!r}") from None
