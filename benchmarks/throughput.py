"""End-to-end tokens/s and peak memory of PPO: textgym, a raw torch loop, a naive stable-baselines3 policy, and TRL's GRPO.

Usage: python benchmarks/throughput.py [--quick] [--rounds 3] [--sizes small,medium]
       python benchmarks/throughput.py --model FILE.gguf     (a real model: one epoch, horizon 24, textgym and raw)

All do the same work in one run: the same model, 16 rows, prompts of 8 tokens, texts of exactly `horizon` tokens, 4 epochs, minibatches of about
192 tokens (whole texts; at least one). Every measurement is a fresh process with one thread, so that peak memory is its own; rounds are
interleaved. Loading and one warm-up iteration are not counted. The naive variant re-reads the whole prefix for every sample.
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
SIZES = {"small (2 x 128, vocabulary 1,024)": (2, 128, 1024), "medium (4 x 256, vocabulary 4,096)": (4, 256, 4096)}


def make_model(folder, layers, width, vocabulary):
    """Write a random GPT-2 whose end-of-text token is as good as never drawn, with a word-level tokenizer."""
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
    vocabulary_size = vocabulary_of(folder)
    if vocabulary_size > 5000:
        return ["The movie was very good, and"] * 64
    return [" ".join(f"w{(i * 31 + j * 7) % min(1000, vocabulary_size - 2)}" for j in range(PROMPT)) for i in range(64)]


def build_task(folder, horizon):
    """Return the task: random prompts, a constant reward."""
    import textgym

    texts = prompts(folder)
    return textgym.Task("Bench-v0", {"train": texts}, folder, horizon, lambda episodes: [float(len(e.continuation) % 7) for e in episodes])


def vocabulary_of(folder):
    """Return the vocabulary size of a model folder."""
    return json.loads((Path(folder) / "config.json").read_text())["vocab_size"]


def forbid_eos(vec):
    """Take end-of-text out of the allowed tokens, so that every text has the whole length."""
    import numpy as np

    mask = vec.action_space.allowed_mask.copy()
    mask[list(vec.unwrapped.mdp.vocabulary.eos_ids)] = False
    vec.action_space.allowed_mask = np.asarray(mask)
    return vec


def run_sb3(folder, horizon, iterations, naive, epochs):
    """Return a function that runs one PPO iteration of stable-baselines3, with our policy and buffer or naively."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.buffers import DictRolloutBuffer

    from textgym.sb3 import CausalLMPolicy, EpisodeRolloutBuffer, make_vec_env

    class Naive(CausalLMPolicy):
        """The whole prefix for every sample, no cache."""

        def _cached_hidden(self, obs):
            return self._hidden(obs)

    vec = forbid_eos(make_vec_env(build_task(folder, horizon), n_envs=ROWS, seed=0))
    model = PPO(
        Naive if naive else CausalLMPolicy,
        vec,
        n_steps=horizon,
        batch_size=max(BATCH, horizon),
        n_epochs=epochs,
        gamma=1.0,
        policy_kwargs={"model": folder},
        rollout_buffer_class=DictRolloutBuffer if naive else EpisodeRolloutBuffer,
        device="cpu",
        seed=0,
    )
    return lambda: model.learn(ROWS * horizon * iterations, reset_num_timesteps=False)


def run_raw(folder, horizon, iterations, epochs):
    """Return a function that runs PPO iterations written by hand: cached sampling, GAE, clipped loss on whole texts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    head = torch.nn.Linear(model.config.hidden_size, 1)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-4, fused=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer(prompts(folder))["input_ids"])
    start_length = ids.shape[1]
    rows_per_batch = max(1, round(BATCH / horizon))

    def masked(logits):
        logits = logits.clone() if not logits.requires_grad else logits
        return logits.index_fill(-1, torch.tensor([tokenizer.pad_token_id, tokenizer.eos_token_id]), -1e9)

    @torch.no_grad()
    def rollout():
        model.eval()
        tokens = ids[torch.randint(len(ids), (ROWS,))]
        cache, new, values, log_probs = DynamicCache(config=model.config), tokens, [], []
        for _ in range(horizon):
            hidden = model.base_model(input_ids=new, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            scores = masked(model.lm_head(hidden)).log_softmax(-1)
            new = torch.multinomial(scores.exp(), 1)
            values.append(head(hidden).squeeze(-1))
            log_probs.append(scores.gather(-1, new).squeeze(-1))
            tokens = torch.cat([tokens, new], 1)
        return tokens, torch.stack(values, 1), torch.stack(log_probs, 1)

    def iteration():
        tokens, values, old = rollout()
        rewards = torch.zeros_like(values)
        rewards[:, -1] = (tokens[:, start_length:].sum(1) % 7).float()
        advantages, last = torch.zeros_like(values), torch.zeros(ROWS)
        for t in reversed(range(horizon)):
            following = values[:, t + 1] if t + 1 < horizon else torch.zeros(ROWS)
            last = rewards[:, t] + following - values[:, t] + 0.95 * last
            advantages[:, t] = last
        returns = advantages + values
        model.train()
        for _ in range(epochs):
            for part in torch.randperm(ROWS).split(rows_per_batch):
                hidden = model.base_model(input_ids=tokens[part, :-1], use_cache=False).last_hidden_state[:, start_length - 1 :]
                scores = masked(model.lm_head(hidden)).log_softmax(-1)
                log_prob = scores.gather(-1, tokens[part, start_length:, None]).squeeze(-1)
                entropy = -(scores.exp() * scores).sum(-1).mean()
                advantage = advantages[part]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                ratio = (log_prob - old[part]).exp()
                loss = -torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2)).mean()
                loss = loss + 0.5 * torch.nn.functional.mse_loss(head(hidden).squeeze(-1), returns[part]) - 0.0 * entropy
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()

    return lambda: [iteration() for _ in range(iterations)]


def run_trl(folder, horizon, iterations):
    """Run TRL's GRPO for some iterations and return the seconds it took after the first."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter())

    rows = max(1, round(BATCH / horizon))
    rows = max(r for r in (1, 2, 4, 8, 16) if r <= max(2, rows))  # TRL wants a divisor of the rows, and groups of at least two
    per_epoch = ROWS // rows
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), max_completion_length=horizon, num_generations=2, per_device_train_batch_size=rows,
        steps_per_generation=per_epoch, num_iterations=EPOCHS, beta=0.0, learning_rate=3e-4, max_steps=per_epoch * EPOCHS * (iterations + 1),
        report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=False, gradient_checkpointing=False,
        generation_kwargs={"min_new_tokens": horizon}, dataloader_num_workers=0,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": prompts(folder) * 50})
    trainer = GRPOTrainer(folder, lambda completions, **_: [float(len(c) % 7) for c in completions], config, data, callbacks=[Clock()])
    trainer.train()
    return times[-1] - times[per_epoch * EPOCHS - 1]


def child(variant, folder, horizon, iterations, epochs=EPOCHS):
    """Measure one variant in this process and print the figures."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    if variant == "trl":
        seconds = run_trl(folder, horizon, iterations)
    else:
        makers = {
            "textgym": lambda n: run_sb3(folder, horizon, n, False, epochs),
            "naive": lambda n: run_sb3(folder, horizon, n, True, epochs),
            "raw": lambda n: run_raw(folder, horizon, n, epochs),
        }
        go = makers[variant](1)
        if variant != "naive":
            go()  # warm-up
        start = time.perf_counter()
        for _ in range(iterations):
            go()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": ROWS * horizon * iterations / seconds, "peak_mib": peak}))


def measure(variant, folder, horizon, iterations, epochs=EPOCHS):
    """Run one variant in a fresh process; return its figures."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--child", variant, folder, str(horizon), str(iterations), str(epochs)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if process.returncode:
        raise SystemExit(f"{variant} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def main():
    """Print a table of medians with ranges, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, small model, horizon 16 and 48")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--model", help="directory or .gguf file of a real model")
    parser.add_argument("--sizes", default="small,medium")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        variant, folder, *numbers = options.child
        child(variant, folder, *map(int, numbers))
        return
    if options.model:
        from textgym.lm.source import resolve_model

        folder = resolve_model(options.model)
        found = {variant: [] for variant in ("textgym", "raw")}
        for _ in range(options.rounds):
            for variant, results in found.items():
                results.append(measure(variant, folder, 24, 1, epochs=1))
        for variant, results in found.items():
            speeds = [r["tokens_per_second"] for r in results]
            print(f"{variant}: {median(speeds):.1f} tokens/s [{min(speeds):.1f}, {max(speeds):.1f}], {results[0]['peak_mib']:,.0f} MiB")
        return
    horizons = (16, 48) if options.quick else (16, 48, 96)
    rounds = 1 if options.quick else options.rounds
    print(
        "| model | horizon | variant | tokens/s, median [min, max] | peak MiB | textgym is ... times as fast |\n|---|---|---|---|---|---|"
    )
    for name, size in SIZES.items():
        if name.split()[0] not in options.sizes.split(",") or (options.quick and name.startswith("medium")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            make_model(folder, *size)
            for horizon in horizons:
                iterations = max(2, 384 // horizon)
                found = {}
                for round_number in range(rounds):
                    for variant in ("textgym", "raw", "trl"):
                        found.setdefault(variant, []).append(measure(variant, folder, horizon, iterations))
                    if options.naive and horizon == 48 and round_number == 0:
                        found["naive"] = [measure("naive", folder, horizon, 1)]
                ours = [r["tokens_per_second"] for r in found["textgym"]]
                for variant, results in found.items():
                    speeds = [r["tokens_per_second"] for r in results]
                    ratio = median(a / b for a, b in zip(ours, speeds, strict=False))
                    span = f"{median(speeds):,.0f} [{min(speeds):,.0f}, {max(speeds):,.0f}]"
                    print(
                        f"| {name} | {horizon} | {variant} | {span} | {max(r['peak_mib'] for r in results):,.0f} | {ratio:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
