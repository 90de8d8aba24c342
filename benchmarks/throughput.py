"""End-to-end tokens/s and peak memory of PPO: textgym, raw torch loops, naive stable-baselines3 policies, and TRL's GRPO.

Usage: python benchmarks/throughput.py [--quick] [--rounds 10] [--sizes small,medium] [--horizons 16,48,96]
       python benchmarks/throughput.py --model FILE.gguf     (a real model: one epoch, horizon 24, textgym and raw)

All do the same work: the same model, 16 rows, prompts of 8 tokens, texts of exactly `horizon` tokens, 4 epochs, minibatches of the same number
of whole texts (8, 4, 2: about 192 tokens; the number of optimizer steps is checked), no KL penalty. Every variant lives in its own
single-threaded process, so that peak memory is its own. The processes take turns, one iteration (rollout and update) each, in rotating order,
so that a round's ratio is taken within seconds and the machine's other load falls on all alike. Loading and a first iteration are not counted.

textgym      unmodified stable-baselines3 PPO, CausalLMPolicy, EpisodeRolloutBuffer
raw          a hand-written torch loop on the Hugging Face model: cached sampling, GAE, clipped loss on whole texts, fused Adam
raw+gelu     the same with textgym's one-kernel GELU in place of transformers' seven steps (GPT-2 types only)
trl          TRL's GRPOTrainer: no value head, no advantages per token
naive        stable-baselines3's PPO and own buffer, a policy that calls the model on the whole padded prefix for every sample
naive-lean   the same work per sample with textgym's shortcuts: no padding, logits at the last position only
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROWS, PROMPT, EPOCHS, BATCH = 16, 8, 4, 192
SIZES = {"small": (2, 128, 1024), "medium": (4, 256, 4096)}


def minibatch_rows(horizon):
    """Return the texts in a minibatch: the largest divisor of the rows with at most 192 tokens (TRL wants at least two)."""
    return max(n for n in (2, 4, 8, 16) if n * horizon <= max(BATCH, 2 * horizon))


# --- models and prompts ----------------------------------------------------------------------------------------------------------------


def make_model(folder, layers, width, vocabulary):
    """Write a random GPT-2 with a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(vocabulary - 2))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left").save_pretrained(folder)
    drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=1, **drop
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


def prompts(folder):
    """Return 64 prompts of equal length, 8 tokens for the models made here."""
    vocabulary_size = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    if vocabulary_size > 5000:
        return ["The movie was very good, and"] * 64
    return [" ".join(f"w{(i * 31 + j * 7) % min(1000, vocabulary_size - 2)}" for j in range(PROMPT)) for i in range(64)]


# --- variants: each returns a function that runs one iteration and returns figures to log ---------------------------------------------


def naive_policy():
    """Return a policy as one would write it without knowing better: the model's own forward, the whole padded prefix, every time."""
    import torch
    from stable_baselines3.common.policies import BasePolicy
    from transformers import AutoModelForCausalLM

    class NaivePolicy(BasePolicy):
        def __init__(self, observation_space, action_space, lr_schedule, model, use_sde=False):
            super().__init__(observation_space, action_space)
            self.lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            self.value_head = torch.nn.Linear(self.lm.config.hidden_size, 1)
            self.register_buffer("allowed", torch.from_numpy(action_space.allowed_mask.copy()))
            self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1), fused=True)

        def _read(self, obs):
            ids, mask = obs["input_ids"].long(), obs["attention_mask"].long()
            last = mask.sum(1) - 1
            rows = torch.arange(len(ids))
            output = self.lm(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
            logits = output.logits[rows, last].masked_fill(~self.allowed, -1e9)
            return torch.distributions.Categorical(logits=logits), self.value_head(output.hidden_states[-1][rows, last])

        def forward(self, obs, deterministic=False):
            distribution, values = self._read(obs)
            actions = distribution.sample()
            return actions, values, distribution.log_prob(actions)

        def evaluate_actions(self, obs, actions):
            distribution, values = self._read(obs)
            return values, distribution.log_prob(actions), distribution.entropy()

        def predict_values(self, obs):
            return self._read(obs)[1]

        def _predict(self, observation, deterministic=False):
            return self._read(observation)[0].sample()

    return NaivePolicy


def sb3(folder, horizon, epochs, kind):
    """PPO of stable-baselines3, with our policy and buffer or naively."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.buffers import DictRolloutBuffer

    import textgym
    from textgym.sb3 import CausalLMPolicy, EpisodeRolloutBuffer, make_vec_env

    class Lean(CausalLMPolicy):
        def _cached_hidden(self, obs):
            return self._hidden(obs)

    task = textgym.Task(
        "Bench-v0", {"train": prompts(folder)}, folder, horizon, lambda episodes: [float(len(e.continuation) % 7) for e in episodes]
    )
    vec = make_vec_env(task, n_envs=ROWS, seed=0)
    mask = vec.action_space.allowed_mask.copy()
    mask[list(vec.unwrapped.mdp.vocabulary.eos_ids)] = False  # no end of text, so that every text has the whole length
    vec.action_space.allowed_mask = mask
    model = PPO(
        {"textgym": CausalLMPolicy, "naive": naive_policy(), "naive-lean": Lean}[kind],
        vec,
        n_steps=horizon,
        batch_size=minibatch_rows(horizon) * horizon,
        n_epochs=epochs,
        gamma=1.0,
        policy_kwargs={"model": folder},
        rollout_buffer_class=EpisodeRolloutBuffer if kind == "textgym" else DictRolloutBuffer,
        device="cpu",
        seed=0,
    )

    def iteration():
        model.learn(ROWS * horizon, reset_num_timesteps=False)
        names = ("train/loss", "train/policy_gradient_loss", "train/value_loss", "train/entropy_loss", "train/approx_kl")
        return {name: float(model.logger.name_to_value[name]) for name in names}

    return iteration


def raw(folder, horizon, epochs, fuse_gelu):
    """PPO written by hand; nothing is computed that the loss does not need."""
    import torch
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
    from transformers.activations import NewGELUActivation

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if fuse_gelu:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, NewGELUActivation):
                    setattr(module, name, torch.nn.GELU(approximate="tanh"))
    head = torch.nn.Linear(model.config.hidden_size, 1)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-4, fused=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer(prompts(folder))["input_ids"])
    start = ids.shape[1]
    forbidden = torch.tensor([tokenizer.pad_token_id, tokenizer.eos_token_id])

    def logits_of(hidden):
        return model.lm_head(hidden).index_fill_(-1, forbidden, -1e9)

    @torch.no_grad()
    def rollout():
        new = ids[torch.randint(len(ids), (ROWS,))]
        cache, tokens, values, log_probs = DynamicCache(config=model.config), [new], [], []
        for _ in range(horizon):
            hidden = model.base_model(input_ids=new, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            scores = logits_of(hidden).log_softmax(-1)
            new = torch.multinomial(scores.exp(), 1)
            tokens.append(new)
            values.append(head(hidden).squeeze(-1))
            log_probs.append(scores.gather(-1, new).squeeze(-1))
        return torch.cat(tokens, 1), torch.stack(values, 1), torch.stack(log_probs, 1)

    def iteration():
        tokens, values, old = rollout()
        rewards = torch.zeros_like(values)
        rewards[:, -1] = (tokens[:, start:].sum(1) % 7).float()
        advantages, last = torch.zeros_like(values), torch.zeros(ROWS)
        for t in reversed(range(horizon)):
            following = values[:, t + 1] if t + 1 < horizon else torch.zeros(ROWS)
            last = rewards[:, t] + following - values[:, t] + 0.95 * last
            advantages[:, t] = last
        returns = advantages + values
        for _ in range(epochs):
            for part in torch.randperm(ROWS).split(minibatch_rows(horizon)):
                hidden = model.base_model(input_ids=tokens[part, :-1], use_cache=False).last_hidden_state[:, start - 1 :]
                actions = tokens[part, start:]
                log_prob = -functional.cross_entropy(logits_of(hidden).flatten(0, 1), actions.flatten(), reduction="none")
                advantage = advantages[part]
                advantage = ((advantage - advantage.mean()) / (advantage.std() + 1e-8)).flatten()
                ratio = (log_prob - old[part].flatten()).exp()
                loss = -torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2)).mean()
                loss = loss + 0.5 * functional.mse_loss(head(hidden).squeeze(-1), returns[part])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
        return {"train/loss": loss.item()}

    return iteration


def trl(folder, horizon, epochs, turns):
    """TRL's GRPO; it owns the loop, so a callback takes the turns."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    rows = minibatch_rows(horizon)
    per_epoch = ROWS // rows

    class Turns(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % (per_epoch * epochs) == 0:
                control.should_training_stop = not turns.next({})

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), max_completion_length=horizon, num_generations=2, per_device_train_batch_size=rows,
        steps_per_generation=per_epoch, num_iterations=epochs, beta=0.0, learning_rate=3e-4, max_steps=10_000,
        report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=False, gradient_checkpointing=False,
        generation_kwargs={"min_new_tokens": horizon}, dataloader_num_workers=0,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": prompts(folder) * 50})
    reward = lambda completions, **_: [float(len(c) % 7) for c in completions]  # noqa: E731
    GRPOTrainer(folder, reward, config, data, callbacks=[Turns()]).train()


# --- turns: one process per variant, one iteration at a time ---------------------------------------------------------------------------


class Turns:
    """The child's side: after each iteration report its figures and wait for the next turn."""

    def __init__(self, output, warm_up):
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.output, self.steps = output, 0
        self.counted = not warm_up
        register_optimizer_step_post_hook(self._count)
        if self.counted:
            self._wait()

    def _count(self, *_):
        self.steps += 1

    def _wait(self):
        print("ready", file=self.output, flush=True)
        go = bool(sys.stdin.readline())
        self.steps, self.start, self.cpu_start = 0, time.perf_counter(), time.process_time()
        return go

    def next(self, logged):
        """Report the iteration that has just ended; return whether there is another."""
        if self.counted:
            figures = {
                "seconds": time.perf_counter() - self.start,
                "cpu_seconds": time.process_time() - self.cpu_start,
                "steps": self.steps,
                "peak_mib": peak_mib(),
                "logged": logged,
            }
            print(json.dumps(figures), file=self.output, flush=True)
        self.counted = True
        return self._wait()


def peak_mib():
    """Return the peak resident memory; not ru_maxrss where Linux tells better, for that begins with the parent's peak."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def child(variant, folder, horizon, epochs):
    """Serve one variant's iterations."""
    import logging
    import warnings

    output = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # libraries print
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if variant == "make":
        make_model(folder, *SIZES[horizon])
        return
    horizon, epochs = int(horizon), int(epochs)
    import torch

    torch.set_num_threads(1)
    if variant == "trl":
        trl(folder, horizon, epochs, Turns(output, warm_up=True))
        return
    iteration = raw(folder, horizon, epochs, variant == "raw+gelu") if variant.startswith("raw") else sb3(folder, horizon, epochs, variant)
    turns = Turns(output, warm_up=not variant.startswith("naive"))
    while turns.next(iteration()):
        pass


def start_child(*arguments, script=__file__):
    """Start a single-threaded process of this file, or of another that serves its own variants."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"
    }  # fmt: skip
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
    process = subprocess.Popen(
        [sys.executable, script, "--child", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
    )  # fmt: skip
    process.errors = errors
    return process


def answer(variant, process):
    """Return the next line of a child, or end with its error."""
    line = process.stdout.readline()
    if not line:
        process.errors.seek(0)
        raise SystemExit(f"{variant} failed:\n{process.errors.read()[-3000:]}")
    return line


def compare(folder, horizon, variants, rounds, epochs=EPOCHS, script=__file__):
    """Run `rounds` iterations of each variant in turns; return variant → figures of each iteration."""
    processes, found = {}, {variant: [] for variant in variants}
    try:
        for variant in variants:  # one after the other: loading would disturb
            processes[variant] = start_child(variant, folder, horizon, epochs, script=script)
            answer(variant, processes[variant])
        for number in range(rounds):
            for variant in [*variants[number % len(variants) :], *variants[: number % len(variants)]]:
                process = processes[variant]
                process.stdin.write("go\n")
                process.stdin.flush()
                found[variant].append(json.loads(answer(variant, process)))
                answer(variant, process)  # "ready"
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
            process.errors.close()
    return found


def check_steps(found, expected):
    """End unless every iteration took the expected number of optimizer steps: the work would not be the same."""
    for variant, figures in found.items():
        steps = {f["steps"] for f in figures}
        if steps != {expected}:
            raise SystemExit(f"{variant} made {steps} optimizer steps an iteration, the others {expected}: not the same work")


def span(numbers, digits=0):
    """Return "median [min, max]"."""
    return f"{median(numbers):,.{digits}f} [{min(numbers):,.{digits}f}, {max(numbers):,.{digits}f}]"


def table_rows(name, horizon, found):
    """Return the table's lines for one model and horizon, and variant → median seconds per token."""
    lines, cost, tokens = [], {}, ROWS * horizon
    ours = [f["seconds"] for f in found["textgym"]]
    for variant, figures in found.items():
        seconds = [f["seconds"] for f in figures]
        cost[variant] = median(seconds) / tokens
        # a variant that ran once (naive) is set against the median of ours
        ratios = [b / a for a, b in zip(ours, seconds, strict=True)] if len(seconds) == len(ours) else [s / median(ours) for s in seconds]
        faster = "" if variant == "textgym" else span(ratios, 2)
        peak = max(f["peak_mib"] for f in figures)
        lines.append(f"| {name} | {horizon} | {variant} | {span([tokens / s for s in seconds])} | {peak:,.0f} | {faster} |")
    return lines, cost


def main():
    """Print a table of medians with ranges, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, small model, horizons 16 and 48, without the slow naive ones")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True, help="run the naive policies, once, at horizon 48")
    parser.add_argument("--trl", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--model", help="directory or .gguf file of a real model")
    parser.add_argument("--sizes", default="small,medium")
    parser.add_argument("--horizons", default="16,48,96")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    if options.quick:
        options.rounds, options.sizes, options.horizons, options.naive = 3, "small", "16,48", False
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(
        "| model | horizon | variant | tokens/s, median [min, max] | peak MiB | textgym is ... times as fast |\n|---|---|---|---|---|---|"
    )
    if options.model:
        from textgym.lm.source import resolve_model

        found = compare(resolve_model(options.model), 24, ["textgym", "raw"], options.rounds, epochs=1)
        check_steps(found, ROWS // minibatch_rows(24))
        print("\n".join(table_rows(Path(options.model).stem, 24, found)[0]))
        return
    horizons = [int(h) for h in options.horizons.split(",")]
    notes = []
    for size in options.sizes.split(","):
        layers, width, vocabulary = SIZES[size]
        name, costs = f"{layers} × {width}, vocabulary {vocabulary:,}", {}
        with tempfile.TemporaryDirectory() as folder:
            if start_child("make", folder, size, 0).wait():
                raise SystemExit("the model could not be made")
            for horizon in horizons:
                found = compare(folder, horizon, ["textgym", "raw", "raw+gelu", *(["trl"] if options.trl else [])], options.rounds)
                if options.naive and horizon == 48:
                    for variant in ("naive", "naive-lean"):
                        found |= compare(folder, horizon, [variant], 1)
                check_steps(found, ROWS // minibatch_rows(horizon) * EPOCHS)
                lines, costs[horizon] = table_rows(name, horizon, found)
                print("\n".join(lines), flush=True)
        if len(horizons) > 1:
            first, last = horizons[0], horizons[-1]
            ratios = {v: costs[last][v] / costs[first][v] for v in costs[first] if v in costs[last]}
            notes.append(
                f"{name}: a token at horizon {last} costs, in terms of one at {first}: "
                + ", ".join(f"{v} {r:.2f}" for v, r in ratios.items())
            )
    print("\n" + "\n".join(notes) + f"\nload average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
