"""Training run: one agent on one task in a run directory, with metrics, checkpoints, a learning curve and exact resume."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat

from textgym.agent import Agent, load_agent, make_agent
from textgym.errors import InvalidArgumentError, RunDirectoryError, TextgymError, one_line
from textgym.experiments.budget import PATIENCE, Budget, read_budget
from textgym.experiments.evaluate import evaluate
from textgym.experiments.run_directory import CONFIG_FILE, EVALUATIONS_FILE, FAILURE_FILE, RESULT_FILE, MetricsFile, RunDirectory, read_json
from textgym.memory import peak_memory, reset_peak

PACKAGES = ("textgym", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy")
ENDLESS = 10**15  # tokens
Progress = Callable[[int, int], None]
OnEvaluation = Callable[[dict[str, Any]], None]


class BudgetSpentError(Exception):
    """Raised between two iterations to end learning; nobody else sees it."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        task: Registered task, short or full name.
        agent: Registered agent.
        tokens: Tokens to generate in learning.
        budget: Another budget instead, "tokens-trained=N", "texts-scored=N" or "seconds=N": learning stops after the iteration that spends
            it.
        seed: Of everything random.
        settings: Settings of the agent: reward, model, learning_rate, ...
        evaluations: Points of the learning curve (validation prompts); 0 for none.
        validation_prompts: Prompts per point.
        test_prompts: Prompts of the final evaluation; 0 for none.
        checkpoints: Number of checkpoints over the run.
        tensorboard: Write TensorBoard files too.
        task_options: Options of the task.
        first_point: Whether the learning curve begins with the untrained agent.
    """

    task: str
    agent: str
    tokens: int = 20_000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 5
    validation_prompts: int = 64
    test_prompts: int = 128
    checkpoints: int = 5
    tensorboard: bool = True
    task_options: dict[str, Any] = field(default_factory=dict)
    budget: str = ""
    first_point: bool = True

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InvalidArgumentError(f"tokens must be at least 1, got {self.tokens}")
        _ = self.spending  # bad input fails here

    @property
    def spending(self) -> Budget:
        """The budget of learning."""
        return read_budget(self.budget) if self.budget else Budget("tokens", self.tokens)


def train(
    config: TrainConfig,
    out: str | os.PathLike[str],
    progress: Progress = lambda *_: None,
    on_evaluation: OnEvaluation = lambda _: None,
) -> dict[str, Any]:
    """Run a configuration in a new run directory and return its result.

    Args:
        config: The run.
        out: The run directory.
        progress: Called with (spent, budget) after every iteration.
        on_evaluation: Called with every new point of the learning curve; what it raises ends the run.
    """
    agent = _new_agent(config)  # bad names fail before anything is on disk
    directory = RunDirectory(out)
    try:
        directory.write_json(CONFIG_FILE, {**asdict(config), "versions": {p: version(p) for p in PACKAGES}})
        with _failure_noted(directory):
            return _run(config, agent, directory, progress, on_evaluation)
    finally:
        directory.close()


def read_config(path: Path) -> TrainConfig | None:
    """Return the configuration of the run in a directory, None if there is none."""
    stored = read_json(path / CONFIG_FILE)
    if stored is None:
        return None
    try:
        return TrainConfig(**{k: v for k, v in stored.items() if k != "versions"})
    except (AttributeError, TypeError, ValueError) as error:  # damaged, or of another version
        raise RunDirectoryError(f"{path / CONFIG_FILE} is not the configuration of a training run: {error}") from None


def _new_agent(config: TrainConfig) -> Agent:
    return make_agent(config.agent, config.task, config.task_options, seed=config.seed, **config.settings)


def resume(out: str | os.PathLike[str], progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Go on with an interrupted run from its last checkpoint, exactly as it would have gone on; a finished run is returned as it is."""
    directory = RunDirectory(out, resume=True)
    try:
        if (result := directory.read_json(RESULT_FILE)) is not None:
            return dict(result)
        config = read_config(directory.path)
        assert config is not None  # a directory that is resumed has one
        checkpoint = directory.latest_checkpoint()
        agent = _new_agent(config) if checkpoint is None else load_agent(checkpoint)
        with _failure_noted(directory):
            return _run(config, agent, directory, progress)
    finally:
        directory.close()


@contextmanager
def _failure_noted(directory: RunDirectory) -> Iterator[None]:
    """Write down the error that stops a run, for whoever looks at it later."""
    (directory.path / FAILURE_FILE).unlink(missing_ok=True)
    try:
        yield
    except TextgymError as error:
        with suppress(RunDirectoryError):  # the first error is the one to tell
            directory.write_json(FAILURE_FILE, {"error": one_line(error)})
        raise


def _run(
    config: TrainConfig, agent: Agent, directory: RunDirectory, progress: Progress, on_evaluation: OnEvaluation = lambda _: None
) -> dict[str, Any]:
    """Learn up to the budget, evaluating and checkpointing on the way, then evaluate on the held-out test prompts."""
    outputs: list[KVWriter] = [MetricsFile(directory, up_to=agent.n_tokens)]
    if config.tensorboard:
        outputs.append(TensorBoardOutputFormat(str(directory.path / "tensorboard")))
    agent.set_logger(Logger(str(directory.path), outputs))
    curve = [p for p in directory.read_json(EVALUATIONS_FILE) or [] if p["tokens"] <= agent.n_tokens]
    budget, started = config.spending, time.monotonic()
    before = budget.spent(agent)
    last_spent, idle = before, 0  # and iterations since it grew
    n_checkpoints = _reached(budget.spent(agent), config.checkpoints, budget.amount)
    reset_peak(agent.device)

    def measure() -> None:
        found = evaluate(agent, "validation", config.validation_prompts, config.seed, agent.task.gold, agent.reference)
        curve.append({"tokens": agent.n_tokens, **asdict(agent.costs), "spent": budget.spent(agent), **found.summary()})
        directory.write_json(EVALUATIONS_FILE, curve)
        on_evaluation(curve[-1])

    def after_iteration(_: Agent) -> None:
        nonlocal started, last_spent, idle, n_checkpoints
        agent.learning_seconds += time.monotonic() - started
        spent = budget.spent(agent)
        last_spent, idle = spent, idle + 1 if spent <= last_spent else 0
        progress(int(spent), math.ceil(budget.amount))
        if _reached(spent, config.evaluations, budget.amount) > len(curve) - config.first_point:
            measure()
        if _reached(spent, config.checkpoints, budget.amount) > n_checkpoints:
            n_checkpoints = _reached(spent, config.checkpoints, budget.amount)
            agent.save(directory.checkpoint_folder(agent.n_tokens), training_state=True)
            directory.drop_older_checkpoints()
        if budget.kind != "tokens":  # of which the agent itself keeps the count
            if spent >= budget.amount:
                raise BudgetSpentError
            if idle >= PATIENCE:
                already = f" in learning ({before:,.12g} before it began)" if before else ""
                raise InvalidArgumentError(f"agent {config.agent!r} spends no {budget.unit}{already}: give it another budget")
        started = time.monotonic()

    if config.evaluations and config.first_point and not curve:
        measure()
        started = time.monotonic()
    agent.on_iteration = after_iteration
    tokens = math.ceil(budget.amount) - agent.n_tokens if budget.kind == "tokens" else 0
    if not agent.learns or budget.kind == "tokens":
        if tokens > 0:
            agent.learn(tokens)
    elif budget.spent(agent) < budget.amount:
        agent.budget_share = lambda: budget.spent(agent) / budget.amount
        with suppress(BudgetSpentError):
            agent.learn(ENDLESS)
    if agent.learns and config.evaluations and (not curve or curve[-1]["tokens"] != agent.n_tokens):
        measure()
    peak = peak_memory(agent.device)
    agent.logger.close()
    agent.save(directory.path / "agent")
    result: dict[str, Any] = {
        "agent": config.agent,
        "seed": config.seed,
        "tokens": agent.n_tokens,
        **asdict(agent.costs),
        "seconds": agent.learning_seconds,
        "peak_memory": peak,
        "scored_per_text": agent.scored_per_text,
        "tokens_per_second": agent.n_tokens / agent.learning_seconds if agent.learning_seconds else None,
    }
    if config.test_prompts:
        final = evaluate(agent, "test", config.test_prompts, config.seed, agent.task.gold, agent.reference)
        result |= final.summary()
        result |= {"rewards": final.rewards, "golds": final.gold, "correct": final.correct}
        result["texts"] = [[p, c] for p, c in zip(final.prompts, final.continuations, strict=True)]
    result["curve"] = curve
    directory.write_json(RESULT_FILE, result)
    return result


def _reached(spent: float, wanted: int, amount: float) -> int:
    """Return how many of `wanted` points, evenly spaced over a budget and the last at its end, are reached."""
    return min(wanted, int(spent * wanted / amount))


def load_run(path: str | os.PathLike[str]) -> Path:
    """Return the folder of the agent to use from a run directory or an agent's own folder."""
    folder = Path(path)
    return folder / "agent" if (folder / "agent" / "agent.json").is_file() else folder
