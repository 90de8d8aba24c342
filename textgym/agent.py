"""Agent: an algorithm that improves a policy on a task - the one interface of all of them - with making, saving and loading."""

import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import get_device, set_random_seed
from torch import nn

from textgym.annotation import fits, in_words
from textgym.envs.sb3_vec_env import TextVecEnv
from textgym.errors import InvalidArgumentError
from textgym.files import replaced_folder
from textgym.lm.source import has_weights
from textgym.mdp import TokenMDP
from textgym.plugin_manager import installed_plugins
from textgym.policies.causal_lm_policy import CausalLMPolicy, no_learning
from textgym.policies.generation import GeneratedText, generate
from textgym.policies.reference import ReferenceModel
from textgym.policies.training_state import TrainingState, load_modules, load_training_state, save_modules, save_training_state
from textgym.rewards.reward import make_reward
from textgym.search_space import Choice, Range, SearchSpace
from textgym.tasks import Task, find_task_name, make_task
from textgym.tuned_settings import find_tuned_settings

AGENT_FILE = "agent.json"
Bounds: TypeAlias = Mapping[str, tuple[float, float]]
"""Setting → the least and the greatest number that it may be."""
DEFAULT_KL_COEF = 0.1


@dataclass(frozen=True)
class Costs:
    """What learning has cost an agent so far, in units that do not depend on the machine.

    Attributes:
        tokens_generated: Tokens appended to texts in the environment.
        tokens_trained: Tokens that gradients were taken on, every pass counted.
        texts_scored: Finished texts that the reward was asked about, those included that were given and not written.
    """

    tokens_generated: int
    tokens_trained: int
    texts_scored: int


class Agent(ABC):
    """An algorithm with its policy and its environment.

    Subclasses take their hyperparameters as keyword arguments, call `super().__init__`, build `self.policy`, and implement `learn`.

    Args:
        task: A `Task`, or a task's short or full name.
        reward: What `textgym.make_reward` takes; the task's own by default.
        model: Language model to start from; the task's own by default.
        seed: Of the initial weights, prompts and samples.
        device: "auto", "cpu", "cuda", ...
        dtype: Of the weights.
        autocast: Dtype to compute in where it is another, "bfloat16" beside weights in float32; "" for none.
        lora_rank, lora_alpha, lora_targets: Learn low-rank adapters instead of all weights, see `CausalLMPolicy`; rank 0 for none.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them.
        n_envs: Episodes run side by side.
        max_new_tokens: Token budget of a text; the task's own by default.
        temperature, top_k: Sampling rule of the policy.
        split: Split of the prompts it learns from.
        reference_model: The frozen model of the KL penalty; the model the agent starts from by default; none if that has no
            weights yet, or for "".

    Attributes:
        name: Registered name.
        policy_class: `CausalLMPolicy`, or a subclass that the algorithm needs.
        learns: False for an agent that no token budget improves.
        search_space: What `textgym tune` tries, setting → `Range` or `Choice`; a subclass declares its own settings, inherits the rest, and
            takes one out with None. Settings that an agent does not take, or refuses, are ignored.
        bounds: Setting → the least and the greatest number that it may be, both included; a subclass declares those of its own settings.
            `make_agent` and whoever checks settings beforehand see to them.
        refuses: Settings of its base classes that an agent does not take, setting → why. They are in no search space and no table of settings,
            and any value of theirs but 0 or None is an error.
        scored_per_text: How many texts the reward is asked about for each one that the agent writes, whenever it does; 0 for an agent that
            writes without it.
        env: The stable-baselines3 face of the task.
        policy: The policy being improved.
        n_tokens: Tokens spent of the budget so far: generated ones, or, for an agent that learns from given texts, read ones.
        n_tokens_trained: See `Costs`.
        learning_seconds: Wall time of learning so far, as the run that trains it measures it; evaluations are not counted.
        budget_share: The share of the budget that is behind, where a run's budget is not one of tokens.
        writing_modules: Networks beside the policy without which no text can be written, by name; saved with the agent.
        training_modules: Networks that only learning needs (critics, target networks); saved with the training state.
        resolved: Settings whose default depends on the model that it starts from, as they came out; saved, so that they stay as they are where
            the agent goes on from what it has become.
        logger: Stable-baselines3 logger; silent until a run gives it outputs.
        on_iteration: Called with the agent after every iteration (rollout and update), at a point from which it can be saved and resumed.
    """

    name = ""
    learns = True
    scored_per_text = 0
    refuses: ClassVar[Mapping[str, str]] = {}
    search_space: ClassVar[SearchSpace] = {"learning_rate": Range(5e-5, 3e-3, log=True), "kl_coef": Range(0.02, 0.5, log=True)}
    bounds: ClassVar[Bounds] = {
        "learning_rate": (0, inf),
        "kl_coef": (0, inf),
        "lora_rank": (0, inf),
        "n_envs": (1, inf),
        "temperature": (0, inf),
        "top_k": (0, inf),
    }
    policy_class: type[CausalLMPolicy] = CausalLMPolicy
    policy: CausalLMPolicy

    def __init__(
        self,
        task: str | Task,
        reward: Any = None,
        model: str | os.PathLike[str] | None = None,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "float32",
        autocast: str = "",
        lora_rank: int = 0,
        lora_alpha: float | None = None,
        lora_targets: str | Sequence[str] | None = None,
        gradient_checkpointing: bool = False,
        n_envs: int = 32,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        split: str = "train",
        reference_model: str | os.PathLike[str] | None = None,
    ) -> None:
        self.task = make_task(task) if isinstance(task, str) else task
        self.model = os.fspath(model) if model is not None else self.task.model
        start = self.model if reference_model is None else os.fspath(reference_model)
        self.reference_model = start if start and has_weights(start) else None
        self.seed = seed
        self.device = get_device(device)
        self.policy_settings: dict[str, Any] = {
            "model": self.model,
            "temperature": temperature,
            "top_k": top_k,
            "dtype": dtype,
            "autocast": autocast,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_targets": lora_targets,
            "gradient_checkpointing": gradient_checkpointing,
        }
        self.env = TextVecEnv(
            self.task, n_envs, reward=reward, model=self.model, split=split, max_new_tokens=max_new_tokens, drop_failed=True
        )
        self.env.seed(seed)
        set_random_seed(seed)  # stable-baselines3 draws from the global generators, so every agent does; after rewards that drew weights
        self.n_tokens = self.n_tokens_trained = 0
        self.learning_seconds = 0.0
        self.budget_share: Callable[[], float] | None = None
        self.writing_modules: dict[str, nn.Module] = {}
        self.training_modules: dict[str, nn.Module] = {}
        self.logger = Logger(folder=None, output_formats=[])
        self.on_iteration: Callable[[Agent], None] = lambda _: None
        self.settings: dict[str, Any] = {}  # filled by make_agent: what load_agent needs
        self.resolved: dict[str, Any] = {}

    @abstractmethod
    def learn(self, total_tokens: int) -> "Agent":
        """Improve the policy for at least `total_tokens` more tokens (whole iterations); returns the agent."""

    @property
    def costs(self) -> Costs:
        """What learning has cost so far."""
        return Costs(self.env.mdp.n_steps, self.n_tokens_trained, self.env.mdp.n_scored)

    def set_logger(self, logger: Logger) -> None:
        """Log to the given stable-baselines3 logger."""
        self.logger = logger

    def kl_coefficient(self, given: float | None) -> float:
        """Return the KL penalty's coefficient: as given, or by default 0.1 with a reference model and 0 without one; 0 where it is refused."""
        if "kl_coef" in self.refuses:
            _check_not_refused(type(self), {"kl_coef": given})
            return 0.0
        if given is None:
            return DEFAULT_KL_COEF if self.reference_model is not None else 0.0
        if given > 0 and self.reference_model is None:
            raise InvalidArgumentError(f"kl_coef={given} needs a reference model, but {self.model!r} has no weights yet: pass kl_coef=0")
        return given

    def make_policy(self) -> CausalLMPolicy:
        """Return a fresh policy on the agent's device, with an optimizer of learning rate 0 (for agents that build their own)."""
        settings = {**self.policy_settings, **self.policy_options()}
        policy = self.policy_class(self.env.observation_space, self.env.action_space, no_learning, **settings).to(self.device)
        if policy.lm.adapter_base and hasattr(self, "policy"):
            policy.share_frozen_weights(self.policy)
        return policy

    def policy_options(self) -> dict[str, Any]:
        """Return arguments of the policy beside those that every agent sets; a subclass that has some says so here."""
        return {}

    @cached_property
    def reference(self) -> ReferenceModel | None:
        """The frozen reference model, None without one; loaded when it is first asked for. A policy with adapters is its own."""
        return None if self.reference_model is None else ReferenceModel(self.reference_model, self.device, adapted=self.policy.lm)

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int | None = None, seed: int | None = None, batch_size: int = 64
    ) -> list[str]:
        """Return each prompt with a continuation.

        Args:
            prompts: Texts to continue.
            max_new_tokens: Token budget; the task's by default.
            seed: Of the samples; None takes the most probable token each time.
            batch_size: Texts written side by side.
        """
        if isinstance(prompts, str):
            raise InvalidArgumentError(f"prompts must be a list of texts, got the single text {prompts!r}: pass [{prompts!r}]")
        if not prompts:
            return []
        task = replace(self.task, prompts={"given": list(prompts)}, model=self.model, labels=())
        reward = self.env.mdp.reward if self.scored_per_text else make_reward(lambda episodes: [0.0] * len(episodes))
        budget = self.env.mdp.max_new_tokens if max_new_tokens is None else max_new_tokens
        mdp = TokenMDP(task, self.env.mdp.vocabulary, reward, min(batch_size, len(prompts)), "given", budget)
        rng = None if seed is None else np.random.default_rng(seed)
        return [t.info["prompt"] + t.info["continuation"] for t in self.write(mdp, range(len(prompts)), rng)]

    def write(self, mdp: TokenMDP, prompt_indices: Sequence[int], rng: np.random.Generator | None) -> list[GeneratedText]:
        """Write one text for each prompt of `mdp`; `rng` draws, None takes what is most probable. Generation and evaluation use it."""
        return generate(self.policy, mdp, prompt_indices, rng)

    # --- saving and exact resume ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str], training_state: bool = False) -> None:
        """Write a Hugging Face folder with `agent.json`; `load_agent` and `from_pretrained` both read it.

        Settings that are Python objects, such as a function as reward, are not stored: they are to be given again when it is loaded.

        Args:
            folder: Replaced as a whole.
            training_state: Also write what an exactly resumed run needs: optimizer, random generators, running episodes, counters.
        """
        if not self.settings:
            raise InvalidArgumentError(f"{type(self).__name__} was built by its class; build it with textgym.make_agent to save it")
        with replaced_folder(folder) as aside:
            self.policy.save_pretrained(aside)
            given = {**self.settings, **self.resolved}
            objects = [name for name, value in given.items() if not _is_plain(value)]
            settings = {name: None if name in objects else value for name, value in given.items()}
            description = {"agent": self.name, "n_tokens": self.n_tokens, "settings": settings, "objects": objects}
            (aside / AGENT_FILE).write_text(json.dumps(description, indent=2) + "\n")
            save_modules(aside, self.writing_modules)
            if training_state:
                state = TrainingState(self.optimizers(), self.training_modules, self.arrays(), self.state())
                save_training_state(aside, state)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return all optimizers by name; subclasses with more than the policy's add theirs."""
        return {"policy": self.policy.optimizer}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what is too large for `state`, such as a replay's tokens, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return the agent's own state beside weights, optimizers, arrays and global generators, as plain data; subclasses add to it."""
        return {
            "n_tokens": self.n_tokens,
            "n_tokens_trained": self.n_tokens_trained,
            "learning_seconds": self.learning_seconds,
            "env": self.env.mdp.state(),
        }

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` and `arrays` returned."""
        del arrays
        self.n_tokens, self.n_tokens_trained = int(state["n_tokens"]), int(state["n_tokens_trained"])
        self.learning_seconds = float(state["learning_seconds"])
        self.env.mdp.load_state(state["env"])
        self.env._seeded = True
        self.env._reset_seeds()


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def make_agent(name: str, task: str | Task, task_options: Mapping[str, Any] | None = None, tuned: bool = False, **settings: Any) -> Agent:
    """Build a registered agent.

    Args:
        name: "ppo", "a2c", "reinforce", "base", or any agent of an installed plugin.
        task: A `Task`, or a task's short or full name.
        task_options: Options of a task given by name.
        tuned: Take the settings that were tuned for the task where none are given.
        **settings: Arguments of the agent: those of `Agent` (`model`, `reward`, `seed`, ...) and its own hyperparameters.
    """
    factory = installed_plugins().find("agent", name).factory
    check_settings(name, factory, settings)
    if tuned:
        settings = {**tuned_settings(name, task), **settings}
    if task_options and not isinstance(task, str):
        raise InvalidArgumentError(f"options {sorted(task_options)} fit a task given by name, not a Task object")
    agent = factory(make_task(task, **task_options) if isinstance(task, str) and task_options else task, **settings)
    if not isinstance(agent, Agent):
        raise InvalidArgumentError(f"agent {name!r} returned {agent!r}, not a textgym.agent.Agent")
    agent.name = name
    task_name = find_task_name(task) if isinstance(task, str) else None
    options = {"task_options": dict(task_options)} if task_options else {}
    agent.settings = {"task": task_name, **options, **{k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in settings.items()}}
    return agent


def tuned_settings(name: str, task: str | Task) -> dict[str, Any]:
    """Return the settings that were tuned for an agent on a task, none where its defaults stand; raises if no plugin ships a search."""
    task_name = find_task_name(task) if isinstance(task, str) else task.name
    found = find_tuned_settings(name, task_name)
    if found is None:
        owners = (n.partition("@") for n in installed_plugins().registrations("tuned_setting"))
        known = [agent for agent, _, place in owners if place == task_name]
        raise InvalidArgumentError(
            f"nothing was tuned for agent {name!r} on task {task_name!r} (there are searches for: {', '.join(known) or 'none'}): "
            f"leave tuned out, or find some with: textgym tune {task_name} --agent {name} --out DIR"
        )
    return dict(found.settings)


def load_agent(folder: str | os.PathLike[str], task: Task | None = None, **changes: Any) -> Agent:
    """Load an agent written by `save`.

    Args:
        folder: As given to `save`.
        task: Needed if the agent was made on a `Task` object rather than a name.
        **changes: Settings to change (`device="cuda"`, a `reward` that was a Python object, ...).
    """
    path = Path(folder)
    if not (path / AGENT_FILE).is_file():
        raise InvalidArgumentError(f"{os.fspath(folder)!r} holds no {AGENT_FILE}; give a folder written by Agent.save")
    description = json.loads((path / AGENT_FILE).read_text())
    for name in description.get("objects", []):
        if name not in changes:
            raise InvalidArgumentError(
                f"the agent in {os.fspath(folder)!r} was made with a Python object as {name}: pass it again as {name}="
            )
    settings = {**description["settings"], **changes}
    task_name = settings.pop("task")
    target: str | Task | None = task or task_name
    if target is None:
        raise InvalidArgumentError(f"the agent in {os.fspath(folder)!r} was made on a Task object: pass it again as task=")
    options = settings.pop("task_options", {})
    if not isinstance(target, str):  # given again, options and all
        options = {}
    start = settings.pop("model", None) or (make_task(target, **options) if isinstance(target, str) else target).model
    reference = start if has_weights(start) else ""  # what the agent started from, not what it has become
    agent = make_agent(description["agent"], target, options, model=path, **{"reference_model": reference, **settings})
    agent.n_tokens = int(description["n_tokens"])
    agent.settings = {**description["settings"], **changes}
    load_modules(path, agent.writing_modules)
    state = load_training_state(path, agent.optimizers(), agent.training_modules)
    if state is not None:
        agent.load_state(state.plain, state.arrays)
    return agent


def check_settings(name: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise for a setting that neither the agent nor, if it passes settings on, the classes it is built on take, and for a value that none has.

    Args:
        name: The agent's, for the error.
        factory: As for `agent_settings`.
        settings: Are checked by name, type (the annotation of the parameter) and bounds (`Agent.bounds`).
    """
    _check_not_refused(factory, settings)
    parameters, bounds = _parameters(factory), _declared(factory, "bounds")
    for setting, value in settings.items():
        if setting in _refused(factory):
            continue
        if setting not in parameters:
            near = get_close_matches(setting, parameters, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidArgumentError(f"agent {name!r} has no setting {setting!r}: {hint}settings: {', '.join(parameters)}")
        annotation = parameters[setting].annotation
        if not fits(value, annotation):
            raise InvalidArgumentError(f"agent {name!r}: {setting} must be {in_words(annotation)}, got {value!r}")
        least, greatest = bounds.get(setting, (-inf, inf))
        if fits(value, float) and not least <= value <= greatest:
            span = f"at least {least:g}" if greatest == inf else f"from {least:g} to {greatest:g}"
            raise InvalidArgumentError(f"agent {name!r}: {setting} must be {span}, got {value!r}")


def _refused(factory: Callable[..., Any]) -> Mapping[str, str]:
    """Return the settings that an agent refuses, setting → why; a function that makes agents may have an attribute `refuses`, too."""
    found: Mapping[str, str] = getattr(factory, "refuses", {})
    return found


def _check_not_refused(factory: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    for setting, why in _refused(factory).items():
        if settings.get(setting):
            raise InvalidArgumentError(f"{factory.__name__}: {why}; leave {setting}={settings[setting]} out")


def agent_settings(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return every setting that an agent takes with its default, its own first; none that it refuses.

    Args:
        factory: The agent's class, whose base classes are asked as long as settings are passed on, or a function.
    """
    return {name: parameter.default for name, parameter in _parameters(factory).items()}


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters behind `agent_settings`; an annotation that cannot be resolved is `Any`."""
    found: dict[str, inspect.Parameter] = {}
    for owner in _owners(factory):
        if inspect.isclass(owner) and "__init__" not in vars(owner):
            continue
        try:
            hints = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner)
        except (NameError, TypeError, AttributeError):  # of a module that imports a name for type checkers alone
            hints = {}
        parameters = list(inspect.signature(owner).parameters.values())[1:]  # without the task
        named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        # what a base class wants without a default is its subclasses' business
        found |= {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in named if p.name not in found and p.default is not p.empty}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: parameter for name, parameter in found.items() if name not in _refused(factory)}


def _owners(factory: Callable[..., Any]) -> tuple[Any, ...]:
    """Return whose arguments and declarations make up an agent: its classes, or the function and `Agent`."""
    return factory.__mro__ if inspect.isclass(factory) else (factory, *Agent.__mro__)


def _declared(factory: Callable[..., Any], attribute: str) -> dict[str, Any]:
    """Return what an agent's classes, or a function that makes agents, declare in a mapping of settings; the nearest wins."""
    found: dict[str, Any] = {}
    for owner in reversed(_owners(factory)):
        found |= vars(owner).get(attribute, {})
    return found


def agent_search_space(factory: Callable[..., Any]) -> dict[str, Range | Choice]:
    """Return what there is to tune of an agent, setting → values: what its class and its base classes declare, of the settings it takes.

    Args:
        factory: The agent's class, or a function (with an attribute `search_space` of its own if it likes).
    """
    declared: dict[str, Range | Choice | None] = _declared(factory, "search_space")
    known = agent_settings(factory)
    return {name: values for name, values in declared.items() if values is not None and name in known}
