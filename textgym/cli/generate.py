"""`textgym generate`: let a trained agent write."""

import click

from textgym.cli.options import set_threads


@click.command("generate", epilog='Example: textgym generate runs/x/agent --prompt "The movie"')
@click.argument("agent")
@click.option("--prompt", "prompts", multiple=True, required=True, help="Text to continue; may be given several times.")
@click.option("--samples", default=1, show_default=True, help="Continuations per prompt.")
@click.option("--max-new-tokens", type=int, help="Token budget of a text.")
@click.option("--seed", default=0, show_default=True, help="Of the samples.")
@click.option("--greedy", is_flag=True, help="Take the most probable token each time.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def generate_command(
    agent: str, prompts: tuple[str, ...], samples: int, max_new_tokens: int | None, seed: int, greedy: bool, threads: int
) -> None:
    """Continue prompts with the agent in AGENT, a run directory or an agent's folder."""
    set_threads(threads)
    from textgym.agent import load_agent
    from textgym.experiments.train import load_run

    loaded = load_agent(load_run(agent), n_envs=4)
    for text in loaded.generate([p for p in prompts for _ in range(samples)], max_new_tokens, None if greedy else seed):
        click.echo(text)
