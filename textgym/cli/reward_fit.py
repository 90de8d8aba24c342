"""`textgym reward fit`: a reward model from human judgements."""

from typing import Any

import click

from textgym.cli.options import named_values, set_threads
from textgym.cli.progress import progress_bar
from textgym.errors import InvalidArgumentError

SCORERS = ("tfidf", "compact", "embedding", "mlp", "lm-linear", "transformer")
KINDS = ("spans", "recombined", "sampled")
LOSSES = ("squared-error", "heteroscedastic", "multi-task", "cross-entropy", "ordinal", "bradley-terry")


@click.command("fit", epilog="Example: textgym reward fit human-ratings --scorer tfidf --loss squared-error --out my-reward")
@click.argument("data")
@click.option("--scorer", default="tfidf", show_default=True, help=f"One of {', '.join(SCORERS)}.")
@click.option("--loss", help=f"One of {', '.join(LOSSES)}; by default what suits the judgements.")
@click.option("--out", required=True, help="Folder of the reward model; it then serves as a reward by its path.")
@click.option("--epochs", type=int, help="At most so many passes over the judgements.")
@click.option("--batch-size", type=int, help="Judgements per step.")
@click.option("--learning-rate", type=float, help="Highest rate of AdamW.")
@click.option("--patience", default=3, show_default=True, help="Epochs without a better validation figure before it stops.")
@click.option("--max-minutes", type=float, help="Start no epoch that would end later.")
@click.option(
    "--pretrain",
    type=click.Choice(["simcse", "moco"]),
    help="First teach the encoder to tell bare training texts apart (scorer transformer).",
)
@click.option("--pretrain-steps", default=200, show_default=True, help="Steps of that.")
@click.option("--contrastive", type=click.Choice(["simcse", "moco"]), help="Auxiliary contrastive term (scorer transformer).")
@click.option("--members", default=1, show_default=True, help="Fit an ensemble of so many models; their spread tells how uncertain it is.")
@click.option(
    "--bootstrap", is_flag=True, help="Fit each member to a bootstrap of the training judgements, near-duplicates drawn together."
)
@click.option(
    "--combine",
    type=click.Choice(["mean", "min", "mean-std", "uncertainty-weighted"]),
    default="mean",
    show_default=True,
    help="How the members' scores become one.",
)
@click.option("--penalty", default=1.0, show_default=True, help="k of mean - k std, or of uncertainty-weighted: mean - k variance.")
@click.option(
    "--length-debias",
    type=click.Choice(["residual", "penalty"]),
    help="Take off what the score owes to length: after fitting, or by a penalty in the loss.",
)
@click.option("--length-coef", default=1.0, show_default=True, help="Weight of that penalty.")
@click.option(
    "--calibrate", is_flag=True, help="Calibrate the scores on the validation judgements: isotonic for ratings, else a temperature."
)
@click.option("--teacher", help="Folder of a larger fitted reward model whose scores are learnt from, too.")
@click.option("--teacher-share", default=0.5, show_default=True, help="Of the teacher's score in a training text's target.")
@click.option("--invented", default=0, show_default=True, help="Texts made up for the teacher to rate.")
@click.option(
    "--invented-kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=("spans",),
    show_default=True,
    help="Runs of words of training texts; beginnings and ends of two; or what a language model writes. May be repeated: equal shares.",
)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="cpu", show_default=True, help='"cpu", "cuda", ...')
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the scorer, e.g. learner=svm or lora_rank=8.")
@click.option("--set-loss", "extra_loss", multiple=True, metavar="NAME=VALUE", help="A setting of the loss, e.g. ties=rao-kupper.")
@click.option("--limit", type=int, help="Use only so many judgements of each split, for a quick trial.")
def fit_command(
    data: str,
    scorer: str,
    loss: str | None,
    out: str,
    device: str,
    threads: int,
    extra: tuple[str, ...],
    extra_loss: tuple[str, ...],
    limit: int | None,
    contrastive: str | None,
    pretrain: str | None,
    members: int,
    bootstrap: bool,
    combine: str,
    penalty: float,
    length_debias: str | None,
    teacher: str | None,
    teacher_share: float,
    invented: int,
    kinds: tuple[str, ...],
    **settings: Any,
) -> None:
    """Fit a reward model to DATA: a registered set ("human-ratings"), or a file of ratings, labels or preference pairs.

    Every epoch's figures on the validation judgements are printed, and what was printed is in the folder: an interrupted fit keeps its best
    model. The folder is then a reward like any other: textgym reward score DIR --continuation "..."

    An ensemble, debiased and calibrated: textgym reward fit human-ratings --members 5 --bootstrap --length-debias residual --calibrate --out e
    """
    from textgym.reward_modeling.data.judgement_source import load_judgements, sample, undeclared_order
    from textgym.reward_modeling.fitting.distillation import Distillation
    from textgym.reward_modeling.fitting.ensemble_fit import EnsembleSettings, fit_reward_ensemble
    from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
    from textgym.reward_modeling.metrics import Metrics

    set_threads(threads)
    judgements = load_judgements(data)
    if limit is not None:
        judgements = sample(judgements, limit)
    if judgements.kind == "texts":
        raise click.UsageError(f"{data} holds texts without judgements; learn from them by: textgym reward discriminate {data} --out {out}")
    suits = {"ratings": "squared-error", "labels": "cross-entropy", "pairs": "bradley-terry"}
    if teacher is None and invented:
        raise click.UsageError("--invented texts need a --teacher to rate them")
    chosen = FitSettings(
        contrastive=contrastive or "",
        pretrain=pretrain or "",
        length_debias=length_debias or "",
        distillation=Distillation(teacher=teacher, share=teacher_share, invented=invented, kinds=kinds) if teacher else None,
        scorer=named_values(extra, "--set"),
        loss=named_values(extra_loss, "--set-loss"),
        **settings,
    )

    def report(entry: Metrics, member: str = "") -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("epoch", "seconds"))
        click.echo(f"{member}epoch {entry['epoch']:>3.0f}  {entry['seconds']:8.1f} s  {figures}")

    click.echo(f"{data}: {len(judgements):,} {judgements.kind}; scorer {scorer}, loss {loss or suits[judgements.kind]}")
    if (order := undeclared_order(judgements)) is not None:
        click.echo(order)
    if not any(item.split for item in judgements.items):
        click.echo(
            f"no splits in {data}: a tenth validates and nothing is left to test; for an honest figure draw them first by: textgym reward data "
            f"{data} --split 0.8,0.1,0.1 --convert split.jsonl"
        )
    named: dict[str, Any] = {"scorer": scorer, "loss": loss or suits[judgements.kind], "settings": chosen, "device": device}
    with progress_bar("fitting", "judgements") as show:
        if members != 1:
            ensemble = EnsembleSettings(members=members, bootstrap=bootstrap, how=combine, penalty=penalty)  # type: ignore[arg-type]
            found = fit_reward_ensemble(
                judgements, out, ensemble=ensemble, show=show, report=lambda number, entry: report(entry, f"member {number}  "), **named
            )
            fits, low, high = found.fits, found.reward.low, found.reward.high
        else:
            if bootstrap or combine != "mean":
                raise InvalidArgumentError(f"{'--bootstrap' if bootstrap else '--combine'} is for an ensemble: add --members 5")
            fits = (fit_reward_model(judgements, out, show=show, report=report, **named),)
            low, high = fits[0].reward.low, fits[0].reward.high
    for fit in fits:
        calibration = fit.reward.calibration
        if calibration is not None:
            how = f"temperature {calibration.temperature:.3f}" if calibration.method == "temperature" else calibration.method
            errors = f"{calibration.error_before:.3f} before, {calibration.error_after:.3f} after (validation, cross-fitted)"
            click.echo(f"calibration: {how}; expected calibration error {errors}")
    best = ", ".join(f"epoch {fit.best['epoch']:.0f}" for fit in fits)
    click.echo(f"best: {best}; range {low:g} .. {high:g}; written to {out}")
