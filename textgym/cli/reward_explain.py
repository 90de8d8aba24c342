"""`textgym reward explain`: which words made a reward what it is."""

import json
from pathlib import Path

import click

from textgym.cli.console import console
from textgym.cli.options import check_page, settings_from
from textgym.episode import Episode
from textgym.errors import InvalidArgumentError

FIRST = 200  # texts of the global view


@click.command("explain", epilog='Example: textgym reward explain human-rating --continuation "A dull plot, but great fun." --out why.html')
@click.argument("reward")
@click.option("--prompt", default="", help="Prompt of the text.")
@click.option("--continuation", "continuations", multiple=True, help="The text; may be given several times.")
@click.option("--words", "data", help="Also list the words that move the reward most over the texts of this data (or human-ratings).")
@click.option(
    "--method",
    default="shapley",
    show_default=True,
    help="shapley: the parts add up; occlusion: faster; integrated-gradients: fast and the parts add up, for transformer and lm-linear.",
)
@click.option("--permutations", default=64, show_default=True, help="Orders of the words that shapley draws.")
@click.option("--steps", default=64, show_default=True, help="Points on the path of integrated-gradients.")
@click.option("--out", type=click.Path(path_type=Path), help="Write an HTML page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the reward.")
def explain_command(
    reward: str,
    prompt: str,
    continuations: tuple[str, ...],
    data: str | None,
    method: str,
    permutations: int,
    steps: int,
    out: Path | None,
    as_json: bool,
    extra: tuple[str, ...],
) -> None:
    """Colour the words of a text by what each adds to REWARD, a name, a text that combines rewards, or the folder of a fitted model.

    By gradients: textgym reward explain my-transformer --method integrated-gradients --continuation "A dull plot."
    """
    from textgym.reward_modeling.explanation.explanation import explain, influential_words
    from textgym.reward_modeling.explanation.view import coloured, write_explanations
    from textgym.rewards.reward import make_reward

    if not continuations and data is None:
        raise InvalidArgumentError("give a text with --continuation, or data with --words")
    check_page(out)
    model, screen = make_reward(reward, **settings_from(extra)), console()
    if method == "integrated-gradients":
        from textgym.reward_modeling.explanation.integrated_gradients import TOLERANCE, integrated_gradients

        found = [integrated_gradients(model, Episode(prompt, text), steps) for text in continuations]
        checked = f"; checked: below {TOLERANCE:.0%} of the range"
    else:
        found = [explain(model.score, Episode(prompt, text), method, permutations) for text in continuations]
        checked = ""
    for explanation in found:
        if as_json:
            values = [[word, value] for word, value in zip(explanation.words, explanation.attributions.tolist(), strict=True)]
            line = {"score": explanation.score, "baseline": explanation.baseline, "residual": explanation.residual, "words": values}
            click.echo(json.dumps(line, ensure_ascii=False))
            continue
        screen.print(coloured(explanation))
        strongest = sorted(zip(explanation.words, explanation.attributions.tolist(), strict=True), key=lambda pair: -abs(pair[1]))[:8]
        screen.print("  " + "  ".join(f"{word.strip()} {value:+.2f}" for word, value in strongest), markup=False, highlight=False)
        click.echo(
            f"  reward {explanation.score:+.3f} = {explanation.baseline:+.3f} {'masked' if checked else 'without words'} {explanation.attributions.sum():+.3f} by words"
            f" {explanation.residual:+.3f} unexplained{checked}"
        )
    influences = []
    if data is not None:
        from textgym.reward_modeling.data.judgement_source import load_judgements
        from textgym.reward_modeling.data.judgements import continuations_of

        shown = [(item.prompt, text) for item in load_judgements(data).items for text in continuations_of(item)]
        texts = [Episode(*parts) for parts in dict.fromkeys(shown)][:FIRST]
        influences = influential_words(model.score, texts)
        for title, some in (("raise", influences[:10]), ("lower", influences[::-1][:10])):
            click.echo(f"{title} it most: " + ", ".join(f"{i.word} {i.mean:+.2f} ({i.count})" for i in some))
    if out is not None:
        write_explanations(found, out, reward, method, influences)
        click.echo(f"page: {out}")
