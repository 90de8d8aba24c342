"""`textgym rate`: collect judgements of texts in a local web page."""

from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import click

from textgym.cli.options import set_threads
from textgym.errors import InvalidArgumentError
from textgym.rating.collection import Collection, Mode
from textgym.rating.store import JudgementStore

EXAMPLES = """\b
Example: textgym rate runs/x --out judgements.db
         textgym rate runs/x base --task ReviewContinuation --mode pairs --out pairs.db
         textgym rate texts.jsonl --scale 1 5 --question "How polite?" --out polite.db
Go on:   textgym rate --out judgements.db
Export:  textgym rate --out judgements.db --export judgements.jsonl"""


@click.command("rate", epilog=EXAMPLES)
@click.argument("sources", nargs=-1, metavar="[SOURCE [SOURCE2]]")
@click.option("--out", default="judgements.db", show_default=True, help="SQLite file; made if missing, continued otherwise.")
@click.option("--export", "export_path", metavar="FILE", help="Write the judgements in --out as JSON lines and stop.")
@click.option("--mode", type=click.Choice(["ratings", "pairs"]), help="Default: pairs for two sources, else ratings.")
@click.option("--samples", default=50, show_default=True, help="Texts to rate, or pairs to compare; the same for every rater.")
@click.option("--scale", nargs=2, type=int, default=(-4, 4), show_default=True, help="Ends of the rating scale.")
@click.option("--levels", default=1, show_default=True, help="Of a preference: above 1, raters also say by how much (the margin).")
@click.option("--question", default="", help="Asked above every text.")
@click.option("--task", help="Whose prompts an agent continues; a saved agent's own by default.")
@click.option("--split", default="train", show_default=True, help="Of the task's prompts.")
@click.option("--max-new-tokens", type=int, help="Token budget of a text.")
@click.option("--seed", default=0, show_default=True, help="Of the samples, and of every rater's order and sides.")
@click.option("--port", default=8765, show_default=True, help="Of the page, on 127.0.0.1; 0 for any free one.")
@click.option("--threads", default=1, show_default=True, help="CPU threads for writing samples.")
def rate_command(
    sources: tuple[str, ...],
    out: str,
    export_path: str | None,
    mode: str | None,
    samples: int,
    scale: tuple[int, int],
    levels: int,
    question: str,
    task: str | None,
    split: str,
    max_new_tokens: int | None,
    seed: int,
    port: int,
    threads: int,
) -> None:
    """Show samples of one or two SOURCEs in a local web page and collect what people say of them.

    A SOURCE is a run directory, a saved agent's folder, an agent's name (with --task), or a .jsonl file with "text" and perhaps "prompt"
    on every line. Several people may judge at the same time, each under a name; every click is on disk before the page goes on. Who
    wrote a text is never shown; order and sides are shuffled for every rater.
    """
    path = Path(out)
    if export_path is not None:
        if sources:
            raise InvalidArgumentError("--export writes what is in --out: give no SOURCE with it")
        with closing(JudgementStore(path)) as store:
            _export(store, Path(export_path))
        return
    from textgym.rating.server import RatingServer  # a missing extra is told before samples are written

    wanted = None
    if sources:
        chosen = cast(Mode, mode or ("pairs" if len(sources) == 2 else "ratings"))
        wanted = Collection(chosen, *scale, levels, question, seed, samples, sources, task, split, max_new_tokens)
        if not path.exists():
            _start(path, wanted, threads)
    with closing(JudgementStore(path)) as store:
        if wanted is not None and store.collection != wanted:
            raise InvalidArgumentError(f"{path} holds another collection: choose another --out, or go on with it by giving no SOURCE")
        server = RatingServer(store, port)
        judged = store.judgements()
        what = "texts to rate" if store.collection.mode == "ratings" else "pairs to compare"
        click.echo(f"{path}: {len(store.items)} {what}, {len(judged)} judgements by {len({j.rater for j in judged})} raters so far")
        with suppress(KeyboardInterrupt):
            click.echo(f"open {server.url}  (Ctrl-C stops; every click is already stored)")
            server.run()
        click.echo(f"{len(store.judgements())} judgements in {path}; go on: textgym rate --out {out}")


def _start(path: Path, collection: Collection, threads: int) -> None:
    from textgym.rating.samples import is_file_of_texts, make_items

    if not all(is_file_of_texts(source) for source in collection.sources):
        set_threads(threads)  # loads torch, which a file of texts does not need
        click.echo(f"writing samples of {' and '.join(collection.sources)} ...")
    items = make_items(collection)
    if len(items) < collection.samples:
        click.echo(
            f"{len(items)} items, not {collection.samples}: the sources have no more (blank texts and pairs of equal ones are left out)"
        )
    JudgementStore.create(path, collection, items).close()


def _export(store: JudgementStore, path: Path) -> None:
    from textgym.rating.agreement import agreement
    from textgym.rating.export import judgement_set
    from textgym.reward_modeling.data.writing import write_judgements

    judgements = store.judgements()
    if not judgements:
        raise InvalidArgumentError(f"{store.path} holds no judgements yet: nothing to export")
    found = judgement_set(store)
    write_judgements(found, path)
    what = "rated texts" if store.collection.mode == "ratings" else "preference pairs"
    click.echo(f"{path}: {len(found)} {what} from {len(judgements)} judgements by {len({j.rater for j in judgements})} raters")
    click.echo(str(agreement(judgements, store.collection.mode)))
