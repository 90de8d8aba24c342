"""`textgym reward discriminate`: a reward from good texts alone."""

from typing import Any

import click

from textgym.cli.options import named_values, set_threads
from textgym.cli.progress import progress_bar
from textgym.cli.reward_fit import SCORERS


@click.command("discriminate", epilog="Example: textgym reward discriminate ReviewContinuation --limit 500 --out like-the-references")
@click.argument("experts")
@click.option(
    "--model", default="reviews", show_default=True, help="Whose texts are to be told apart: a name, a directory, an agent's too."
)
@click.option("--out", required=True, help="Folder of the discriminator; it then serves as a reward by its path.")
@click.option("--max-new-tokens", default=24, show_default=True, help="Token budget of a text.")
@click.option("--epochs", type=int, help="At most so many passes over the expert texts; 5 by default, or what suits the scorer.")
@click.option("--patience", default=2, show_default=True, help="Epochs without a better validation figure before it stops.")
@click.option("--whole-texts", "scorer", metavar="SCORER", help=f"Judge whole texts instead of tokens, by one of {', '.join(SCORERS)}.")
@click.option(
    "--form",
    type=click.Choice(["log-odds", "positive", "negative"]),
    help="What the verdict on a whole text pays; over tokens it is chosen where the reward is used: --set form=positive.",
)
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="cpu", show_default=True, help='"cpu", "cuda", ...')
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--limit", type=int, help="Use only so many expert texts of each split, for a quick trial.")
@click.option(
    "--set",
    "extra",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting: trunk=frozen, penalty=r1, label_smoothing=0.1; or of the scorer.",
)
def discriminate_command(
    experts: str,
    model: str,
    out: str,
    max_new_tokens: int,
    epochs: int | None,
    patience: int,
    scorer: str | None,
    form: str | None,
    seed: int,
    device: str,
    threads: int,
    limit: int | None,
    extra: tuple[str, ...],
) -> None:
    """Learn to tell the texts of EXPERTS from a language model's: what looks like the expert's is rewarded.

    EXPERTS is a file or registered set of texts without judgements, or a task, whose references are taken. The model continues the same
    prompts. The folder is a reward like any other; over tokens (the default) it pays each token when it is chosen.
    """
    from textgym.imitation.expert_texts import load_experts
    from textgym.imitation.fitting import discrimination_set, fit_discriminator
    from textgym.imitation.learner import DiscriminatorSettings
    from textgym.plugin_manager import check_options
    from textgym.reward_modeling.data.judgement_source import sample
    from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
    from textgym.reward_modeling.metrics import Metrics

    if form is not None and scorer is None:
        raise click.UsageError("--form is for --whole-texts; over tokens it is chosen where the reward is used, by its setting form")
    set_threads(threads)
    texts = load_experts(experts)
    if limit is not None:
        texts = sample(texts, limit)
    settings = named_values(extra, "--set")

    def report(entry: Metrics) -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("epoch", "seconds"))
        click.echo(f"epoch {entry['epoch']:>3.0f}  {entry['seconds']:8.1f} s  {figures}")

    click.echo(f"{experts}: {len(texts):,} expert texts; against texts of {model}")
    if scorer is None:
        check_options("a discriminator", DiscriminatorSettings, settings)
        named: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        with progress_bar("fitting", "texts") as show:
            _, history = fit_discriminator(
                texts,
                out,
                model=model,
                settings=DiscriminatorSettings(**settings),
                max_new_tokens=max_new_tokens,
                patience=patience,
                seed=seed,
                device=device,
                show=show,
                report=report,
                **named,
            )
        best = max(history, key=lambda entry: entry["auc"])
    else:
        labelled = discrimination_set(texts, model, max_new_tokens, seed, device)
        chosen = FitSettings(seed=seed, epochs=epochs, patience=patience, scorer=settings, loss={"form": form} if form else {})
        with progress_bar("fitting", "texts") as show:
            best = fit_reward_model(
                labelled, out, scorer=scorer, loss="discrimination", settings=chosen, device=device, show=show, report=report
            ).best
    click.echo(f"best: epoch {best['epoch']:.0f}, area under the curve {best['auc']:.3f} (0.5 is chance); written to {out}")
