"""`textgym reward harden`: a reward model that has learnt from attacks on itself."""

import click

from textgym.cli.options import named_values, set_threads
from textgym.cli.progress import progress_bar


@click.command("harden", epilog="Example: textgym reward harden human-ratings --task ReviewContinuation --rounds 3 --out hardened")
@click.argument("data")
@click.option("--task", required=True, help="Whose prompts the attacks continue, and whose reference texts are the human ones.")
@click.option("--out", required=True, help="Folder of the reward model.")
@click.option("--rounds", default=3, show_default=True, help="Of attack and refit.")
@click.option("--defence", type=click.Choice(["guard", "refit"]), default="guard", show_default=True, help="How it learns from exploits.")
@click.option(
    "--guard-model", default="task", show_default=True, metavar="MODEL", help="Language model the guard reads with; task: its own; none."
)
@click.option("--guard-device", default="cpu", show_default=True, help="Where it runs.")
@click.option("--guard-dtype", default="float32", show_default=True, help="Of its weights.")
@click.option("--judge", help="A second reward: samples that it ranks far lower than the model does are learnt as exploits.")
@click.option("--hold-out", "held_out", multiple=True, metavar="KIND", help="A kind of exploit that is not learnt from; several times.")
@click.option("--max-loss", default=0.02, show_default=True, help="Of validation Pearson; rounds that lose more are not chosen.")
@click.option("--scorer", default="tfidf", show_default=True, help="As for `reward fit`.")
@click.option("--loss", default="squared-error", show_default=True, help="One for ratings, as for `reward fit`.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the scorer.")
@click.option("--limit", type=int, help="Use only so many judgements of each split, for a quick trial.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def harden_command(
    data: str,
    task: str,
    out: str,
    rounds: int,
    defence: str,
    guard_model: str,
    guard_device: str,
    guard_dtype: str,
    judge: str | None,
    held_out: tuple[str, ...],
    max_loss: float,
    scorer: str,
    loss: str,
    extra: tuple[str, ...],
    limit: int | None,
    seed: int,
    threads: int,
) -> None:
    """Fit a reward model to the ratings DATA, attack it, let it learn from what fooled it, and attack it anew, round by round.

    A line for each round tells the validation Pearson and the share of human texts that the worst exploit beats, found anew against the new
    model. The best round that lost little is kept, and measured once more on test prompts.
    """
    from textgym.reward_modeling.data.judgement_source import load_judgements, sample
    from textgym.reward_modeling.fitting.adversarial import HardeningSettings, Measure, harden
    from textgym.reward_modeling.fitting.fit import FitSettings

    set_threads(threads)
    settings = HardeningSettings(
        rounds=rounds,
        defence=defence,  # type: ignore[arg-type]  # one of the choices
        guard_model=None if guard_model == "none" else guard_model,
        guard_device=guard_device,
        guard_dtype=guard_dtype,
        held_out=held_out,
        max_loss=max_loss,
        seed=seed,
    )
    judgements = load_judgements(data)
    if limit is not None:
        judgements = sample(judgements, limit)

    def told(name: str, measure: Measure) -> None:
        figures = f"pearson {measure.pearson:.4f}  worst exploit beats {measure.highest:5.1f} %  mean {measure.mean:5.1f} %"
        click.echo(f"{name:<8}  {figures}  learnt {measure.n_exploits:,}")

    with progress_bar("hardening", "steps") as show:
        result = harden(
            judgements,
            task,
            out,
            scorer=scorer,
            loss=loss,
            settings=settings,
            fit=FitSettings(seed=seed, scorer=named_values(extra, "--set")),
            judge=judge,
            show=show,
            report=lambda number, measure: told(f"round {number}", measure),
        )
    click.echo(f"chosen: round {result.chosen}; on {result.after.ratings} ratings and {result.after.prompts} prompts:")
    told("before", result.before)
    told("after", result.after)
    for kind in sorted(result.before.beaten, key=lambda k: -result.before.beaten[k]):
        unseen = "  (not learnt from)" if kind in held_out else ""
        click.echo(f"  {kind:<32}{result.before.beaten[kind]:6.1f} % -> {result.after.beaten.get(kind, float('nan')):6.1f} %{unseen}")
    click.echo(f"written to {out}")
