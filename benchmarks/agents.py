"""Tokens per CPU second of every learning agent: textgym's, raw torch loops that do the same work, and TRL's RLOO and GRPO.

Usage: python benchmarks/agents.py [--rounds 8] [--agents ppo,rloo,...] [--no-trl]

The same work: one random GPT-2 (2 layers of 128, vocabulary 1,024), 32 rows, prompts of 8 tokens, texts of exactly 24 tokens, the same groups,
epochs, minibatches (the number of optimizer steps is checked) and passes of reference, target or mask networks. Every variant lives in a
single-threaded process of its own; they take turns, one iteration each, in rotating order. Loading and a first iteration are not counted.
CPU seconds of the process, so that the machine's other load weighs less.

raw  written by hand on the Hugging Face model with textgym's one-kernel GELU: cached sampling, the algorithm's loss on whole texts, fused Adam; no
     environment, no log, and nothing that the loss does not need; text only for dagger, whose expert is a function of text
trl  TRL's RLOOTrainer and GRPOTrainer
"""

import argparse
import math
import os
import sys
import tempfile
from statistics import median

from throughput import PROMPT, Turns, compare, prompts, span, start_child

ROWS, HORIZON, LEARNING_RATE, KL = 32, 24, 3e-4, 0.05
GROUPS = {"reinforce": 4, "expert-iteration": 4, "dpo": 4, "rloo": 8, "grpo": 8}
EPOCHS, PARTS, UPDATES, JUDGE_UPDATES, CG_STEPS = 2, 2, 2, 4, 8
ON_POLICY = {"n_steps": HORIZON, "batch_size": ROWS * HORIZON // PARTS, "n_epochs": EPOCHS}
CLIPPED = {"group_size": 8, "n_epochs": EPOCHS, "n_minibatches": PARTS}
SETTINGS = {
    "ppo": ON_POLICY,
    "a2c": {"n_steps": HORIZON},
    "nlpo": ON_POLICY,
    "trpo": {"n_steps": HORIZON, "batch_size": ROWS * HORIZON, "cg_max_steps": CG_STEPS, "n_critic_updates": UPDATES},
    "reinforce": {"group_size": 4},
    "rloo": CLIPPED,
    "grpo": CLIPPED,
    "expert-iteration": {"group_size": 4, "updates": UPDATES},
    "bc": {"share": 1.0},
    "dpo": {"group_size": 4, "updates": UPDATES},
    "soft-q": {"updates": UPDATES},
    "dqn": {"updates": UPDATES},
    "sac": {"updates": UPDATES},
    "ilql": {"data": "references"},
    "gail": {"share": 1.0, "n_epochs": EPOCHS, "n_minibatches": PARTS, "discriminator_updates": JUDGE_UPDATES},
    "dagger": {"mix": 0.0, "updates": UPDATES},
}
OWN_COEFFICIENT = {"dpo": "beta", "soft-q": "alpha", "sac": "alpha"}  # of the KL
WITHOUT_COEFFICIENT = ("bc", "ilql", "dagger")
TRL = ("rloo", "grpo")


def score(ids):
    """Return a reward that costs nothing and differs between texts."""
    return float(sum(ids) % 97)


def expert(prompt, continuation):
    """Return the word that is right after a continuation, which costs next to nothing."""
    del prompt
    return f" w{(5 * len(continuation) + 3) % 1000}"


# --- variants: each returns a function that runs one iteration --------------------------------------------------------------------------


def ours(name, folder):
    """The agent as textgym.make_agent builds it."""
    import textgym

    texts = [
        textgym.Prompt(text, (" " + " ".join(f"w{(i * 13 + j * 5) % 1000}" for j in range(HORIZON)),))
        for i, text in enumerate(prompts(folder))
    ]
    reward = lambda episodes: [score(e.continuation_ids) for e in episodes]  # noqa: E731
    task = textgym.Task("Bench-v0", {"train": texts}, folder, HORIZON, reward, may_end=False, expert=expert)
    coefficient = {OWN_COEFFICIENT.get(name, "kl_coef"): KL} if name not in WITHOUT_COEFFICIENT else {}
    agent = textgym.make_agent(name, task, n_envs=ROWS, device="cpu", learning_rate=LEARNING_RATE, **coefficient, **SETTINGS[name])
    return lambda: agent.learn(1)  # whole iterations


def raw(name, folder):
    """The same algorithm written by hand."""
    import torch
    from torch.nn import functional
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
    from transformers.activations import NewGELUActivation

    def load(learns):
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager" if name == "trpo" else "sdpa"
        )
        for module in list(loaded.modules()):
            for child_name, child in module.named_children():
                if isinstance(child, NewGELUActivation):
                    setattr(module, child_name, torch.nn.GELU(approximate="tanh"))
        return loaded.requires_grad_(learns)

    model = load(True)
    frozen = load(False) if name not in WITHOUT_COEFFICIENT else None
    other = load(False) if name in ("nlpo", "soft-q", "dqn", "sac", "gail") else None  # mask, target, or a discriminator's
    head, other_head = torch.nn.Linear(model.config.hidden_size, 1), torch.nn.Linear(model.config.hidden_size, 1).requires_grad_(False)
    weights = [*model.parameters(), *head.parameters()] if name != "trpo" else list(head.parameters())
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE, fused=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer(prompts(folder))["input_ids"])
    forbidden = torch.tensor([tokenizer.pad_token_id, tokenizer.eos_token_id])

    def logits_of(network, hidden):
        return network.lm_head(hidden).index_fill_(-1, forbidden, -1e9)

    def states(network, tokens):
        return network.base_model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state[:, PROMPT - 1 :]  # (texts, horizon, hidden)

    def log_prob_of(logits, tokens):
        chosen = tokens[:, PROMPT:]
        return -functional.cross_entropy(logits.flatten(0, 1), chosen.flatten(), reduction="none").view(chosen.shape)

    def log_prob(network, tokens):
        return log_prob_of(logits_of(network, states(network, tokens)), tokens)

    def nucleus(logits, share=0.9):
        probabilities, order = logits.softmax(-1).sort(-1, descending=True)
        return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, probabilities.cumsum(-1) - probabilities < share)

    @torch.no_grad()
    def write(group=1):
        new = ids[torch.randint(len(ids), (ROWS // group,))].repeat_interleave(group, 0)
        cache, tokens, values, log_probs = DynamicCache(config=model.config), [new], [], []
        mask_cache = DynamicCache(config=model.config)
        for _ in range(HORIZON):
            hidden = model.base_model(input_ids=new, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            logits = logits_of(model, hidden)
            if name == "nlpo":
                theirs = other.base_model(input_ids=new, past_key_values=mask_cache, use_cache=True).last_hidden_state[:, -1]
                logits = logits.masked_fill(~nucleus(logits_of(other, theirs)), -1e9)
            scores = logits.log_softmax(-1)
            new = torch.multinomial(scores.exp(), 1)
            tokens.append(new)
            values.append(head(hidden).squeeze(-1))
            log_probs.append(scores.gather(-1, new).squeeze(-1))
        tokens = torch.cat(tokens, 1)
        reference = log_prob(frozen, tokens) if name not in ("sac", "dagger") else None
        scores = torch.tensor([score(row) for row in tokens[:, PROMPT:].tolist()])
        return tokens, torch.stack(values, 1), torch.stack(log_probs, 1), reference, scores

    def rewards_of(old, reference, scores):
        rewards = -KL * (old - reference)
        rewards[:, -1] += scores
        return rewards

    def step(loss, optimizer=optimizer):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()

    def advantages_of(rewards, values, lam=0.95):
        advantages, last = torch.zeros_like(values), torch.zeros(len(values))
        for t in reversed(range(HORIZON)):
            following = values[:, t + 1] if t + 1 < HORIZON else torch.zeros(len(values))
            last = rewards[:, t] + following - values[:, t] + lam * last
            advantages[:, t] = last
        return advantages

    def clipped(log_ratio, advantage):
        ratio = log_ratio.exp()
        return -torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2))

    def shuffled_parts():
        for _ in range(EPOCHS):
            yield from torch.randperm(ROWS).split(ROWS // PARTS)

    def actor_critic():
        tokens, values, old, reference, scores = write()
        advantages = advantages_of(rewards_of(old, reference, scores), values)
        returns = advantages + values
        for part in [torch.arange(ROWS)] if name == "a2c" else shuffled_parts():
            hidden = states(model, tokens[part])
            logits = logits_of(model, hidden)
            if name == "nlpo":
                with torch.no_grad():
                    keep = nucleus(logits_of(other, states(other, tokens[part])))
                logits = logits.masked_fill(~keep.scatter(-1, tokens[part, PROMPT:, None], True), -1e9)
            new, advantage = log_prob_of(logits, tokens[part]), advantages[part]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            policy_loss = -(advantage * new).mean() if name == "a2c" else clipped(new - old[part], advantage).mean()
            step(policy_loss + 0.1 * functional.mse_loss(head(hidden).squeeze(-1), returns[part]))

    def trust_region():
        tokens, values, old, reference, scores = write()
        advantages = advantages_of(rewards_of(old, reference, scores), values)
        returns = advantages + values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        trained = list(model.parameters())

        def look():
            logits = logits_of(model, states(model, tokens)).log_softmax(-1)
            return logits, (advantages * (logits.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1) - old).exp()).mean()

        def flat(tensors):
            return torch.cat([t.reshape(-1) for t in tensors])

        def divergence(before, after):
            return (before.exp() * (before - after)).sum(-1).mean()

        logits, gain = look()
        before = logits.detach()
        gradient = flat(torch.autograd.grad(gain, trained, retain_graph=True))
        kl_gradient = flat(torch.autograd.grad(divergence(before, logits), trained, create_graph=True))

        def curvature(vector):
            return flat(torch.autograd.grad(kl_gradient @ vector, trained, retain_graph=True)) + 0.1 * vector

        x, residual = torch.zeros_like(gradient), gradient.clone()
        direction, size = residual.clone(), residual @ residual
        for _ in range(CG_STEPS):
            bent = curvature(direction)
            length = size / (direction @ bent)
            x += length * direction
            residual -= length * bent
            direction, size = residual + (residual @ residual) / size * direction, residual @ residual
        x *= (2 * 0.02 / (x @ curvature(x))).sqrt()
        start = flat(trained).detach()
        with torch.no_grad():
            for k in range(8):
                torch.nn.utils.vector_to_parameters(start + 0.5**k * x, trained)
                now, improved = look()
                if divergence(before, now) < 0.02 and improved > gain:
                    break
            hidden = states(model, tokens)
        for _ in range(UPDATES):
            optimizer.zero_grad()
            functional.mse_loss(head(hidden).squeeze(-1), returns).backward()
            optimizer.step()

    def grouped():
        group = GROUPS[name]
        tokens, _, old, reference, scores = write(group)
        totals = scores if name == "grpo" else rewards_of(old, reference, scores).sum(1)
        groups = totals.view(-1, group)
        if name == "grpo":
            worth = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
        else:
            worth = (groups - (groups.sum(1, keepdim=True) - groups) / (group - 1)).flatten()
            worth = worth / (worth.std() + 1e-8)
        if name == "reinforce":
            returns = rewards_of(old, reference, scores).flip(1).cumsum(1).flip(1)
            returns = returns - (totals - worth)[:, None]
            step(-(returns / returns.std() * log_prob(model, tokens)).mean())
            return
        for part in shuffled_parts():
            new = log_prob(model, tokens[part])
            if name == "rloo":
                step(clipped((new - old[part]).sum(1), worth[part]).mean())
            else:
                gap = reference[part] - new
                step((clipped(new - old[part], worth[part, None]) + KL * (gap.expm1() - gap)).mean())

    def chosen():
        tokens, _, old, reference, scores = write(GROUPS[name])
        totals = (scores if name == "dpo" else rewards_of(old, reference, scores).sum(1)).view(-1, GROUPS[name])
        first = torch.arange(len(totals)) * GROUPS[name]
        best, worst = first + totals.argmax(1), first + totals.argmin(1)
        for _ in range(UPDATES):
            if name == "dpo":
                both = torch.cat([best, worst])
                gains = (log_prob(model, tokens[both]) - reference[both]).sum(1).view(2, -1)
                step(-functional.logsigmoid(KL * (gains[0] - gains[1])).mean())
            else:
                step(-log_prob(model, tokens[best]).mean())

    given = torch.cat([ids, torch.randint(2, 1000, (len(ids), HORIZON))], 1)

    def cloned():
        step(-log_prob(model, given[torch.randperm(len(given))[:ROWS]]).mean())

    replay = []

    def action_values():
        tokens, _, old, reference, scores = write()
        rewards = rewards_of(old, reference, scores) if name == "dqn" else rewards_of(old, old, scores)
        replay.extend(zip(tokens, rewards, reference, strict=True))
        for _ in range(UPDATES):
            drawn = [replay[i] for i in torch.randint(len(replay), (ROWS,))]
            tokens, rewards, reference = (torch.stack([text[k] for text in drawn]) for k in range(3))
            hidden = states(model, tokens)
            logits = logits_of(model, hidden)
            values = head(hidden).squeeze(-1)
            with torch.no_grad():
                theirs = states(other, tokens)
                their_logits, their_values = logits_of(other, theirs), other_head(theirs).squeeze(-1)
                if name == "dqn":
                    top = their_logits.amax(-1)
                    best = KL * (their_logits.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1) - top)
                    taken = KL * (their_logits.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1) - top)
                    their_values, gains = their_values + best, taken - best
                else:
                    gains = KL * (log_prob_of(their_logits, tokens) - reference)
                targets = their_values + gains + advantages_of(rewards - gains, their_values, 0.9)
            if name == "dqn":
                advantage = KL * (logits.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1) - logits.amax(-1))
            else:
                advantage = KL * (log_prob_of(logits, tokens) - reference)
            step(0.5 * (values + advantage - targets).square().mean())
            with torch.no_grad():
                torch._foreach_lerp_([*other.parameters(), *other_head.parameters()], weights, 0.1)

    def soft_actor_critic():
        size = model.config.hidden_size
        embeddings = functional.normalize(model.lm_head.weight.detach(), dim=-1)

        def critic():
            made = {"features": torch.nn.Sequential(torch.nn.LayerNorm(size, elementwise_affine=False), torch.nn.Linear(size, size))}
            return torch.nn.ModuleDict({**made, "value": torch.nn.Linear(size, 1), "token": torch.nn.Linear(size, size)})

        def read(critics, hidden):
            features = [functional.gelu(c["features"](hidden)) for c in critics]
            return [(c["value"](f), c["token"](f)) for c, f in zip(critics, features, strict=True)]

        def least(found):
            return torch.minimum(*(value + direction @ embeddings.T for value, direction in found))  # (texts, horizon, vocab)

        critics = torch.nn.ModuleList([critic(), critic()])
        theirs = torch.nn.ModuleList([critic(), critic()]).requires_grad_(False)
        groups = [{"params": [*model.parameters()]}, {"params": [*critics.parameters()], "lr": 3 * LEARNING_RATE}]
        optimizer = torch.optim.Adam(groups, lr=LEARNING_RATE, fused=True)
        ours, lagging = [*model.parameters(), *critics.parameters()], [*other.parameters(), *theirs.parameters()]
        replay, log_alpha = [], math.log(KL)

        def iteration():
            nonlocal log_alpha
            tokens, _, old, _, scores = write()
            replay.extend(zip(tokens, rewards_of(old, old, scores), strict=True))
            for _ in range(UPDATES):
                drawn = [replay[i] for i in torch.randint(len(replay), (ROWS,))]
                tokens, rewards = (torch.stack([text[k] for text in drawn]) for k in range(2))
                actions, alpha = tokens[:, PROMPT:], math.exp(log_alpha)
                hidden = states(model, tokens)
                log_probs = logits_of(model, hidden).log_softmax(-1)
                found, probs = read(critics, hidden.detach()), log_probs.exp()
                with torch.no_grad():
                    ratio = log_probs - logits_of(frozen, states(frozen, tokens)).log_softmax(-1)
                    q = least(read(theirs, states(other, tokens)))
                    values = (probs * (q - alpha * ratio)).sum(-1)
                    gains = q.gather(-1, actions[..., None]).squeeze(-1) - values
                    targets = values + gains + advantages_of(rewards - gains, values, 0.9)
                    worth = alpha * ratio - least(found)
                    distance = (probs * ratio).sum(-1).mean().item()
                taken = [value.squeeze(-1) + (direction * embeddings[actions]).sum(-1) for value, direction in found]
                critic_loss = 0.5 * sum((q - targets).square().mean() for q in taken)
                step(critic_loss + (probs * worth).sum(-1).mean(), optimizer)
                log_alpha += 0.01 * (distance - 0.5)
                with torch.no_grad():
                    torch._foreach_lerp_(lagging, ours, 0.1)

        return iteration

    def implicit_q():
        size, vocabulary = model.config.hidden_size, model.config.vocab_size

        def q_head(n):
            return torch.nn.Sequential(torch.nn.Linear(size, 2 * size), torch.nn.ReLU(), torch.nn.Linear(2 * size, n))

        def of(q, hidden, tokens):
            return (q[:2](hidden) * q[2].weight[tokens]).sum(-1) + q[2].bias[tokens]

        qs, lagging = (torch.nn.ModuleList([q_head(vocabulary) for _ in range(2)]) for _ in range(2))
        lagging.requires_grad_(False)
        v = q_head(1)
        optimizer = torch.optim.Adam([*model.parameters(), *qs.parameters(), *v.parameters()], lr=LEARNING_RATE, fused=True)
        rewards = torch.zeros(len(given), HORIZON)
        rewards[:, -1] = torch.tensor([score(row) for row in given[:, PROMPT:].tolist()])

        def iteration():
            drawn = torch.randperm(len(given))[:ROWS]
            tokens = given[drawn]
            actions, hidden = tokens[:, PROMPT:], states(model, tokens)
            values = v(hidden).squeeze(-1)
            with torch.no_grad():
                low = torch.minimum(*(of(q, hidden, actions) for q in lagging))
                gains = low - values
                targets = low + advantages_of(rewards[drawn] - gains, values, 0.9)
            gaps = low - values
            loss = (torch.where(gaps < 0, 0.3, 0.7) * gaps.square()).mean()
            loss = loss + sum((of(q, hidden, actions) - targets).square().mean() for q in qs)
            step(loss - 0.1 * log_prob_of(logits_of(model, hidden), tokens).mean(), optimizer)
            with torch.no_grad():
                torch._foreach_lerp_([*lagging.parameters()], [*qs.parameters()], 0.1)

        return iteration

    def adversarial():
        size, width = model.config.hidden_size, 64
        query = torch.nn.Sequential(torch.nn.Linear(size, width), torch.nn.GELU(approximate="tanh"), torch.nn.Linear(width, width))
        key = torch.nn.Linear(size, width)
        judge_optimizer = torch.optim.Adam([*query.parameters(), *key.parameters()], lr=1e-3, fused=True)
        replay = []

        def log_odds(tokens):
            with torch.no_grad():
                hidden = functional.layer_norm(states(other, tokens), (size,))
                vectors = functional.layer_norm(other.get_input_embeddings()(tokens[:, PROMPT:]), (size,))
            return (query(hidden) * key(vectors)).sum(-1)

        def iteration():
            tokens, values, old, reference, _ = write()
            replay.append(tokens)
            del replay[:-2]
            texts = torch.cat(replay)
            for _ in range(JUDGE_UPDATES):
                both = torch.cat([given[torch.randint(len(given), (ROWS,))], texts[torch.randint(len(texts), (ROWS,))]])
                theirs, own = log_odds(both).chunk(2)
                step(functional.softplus(-theirs).mean() + functional.softplus(own).mean(), judge_optimizer)
            with torch.no_grad():
                rewards = log_odds(tokens).clamp(-10, 10) - KL * (old - reference)
            advantages = advantages_of(rewards, values)
            returns = advantages + values
            for part in shuffled_parts():
                hidden = states(model, tokens[part])
                new = log_prob_of(logits_of(model, hidden), tokens[part])
                value_loss = functional.mse_loss(head(hidden).squeeze(-1), returns[part])
                step(clipped(new - old[part], advantages[part]).mean() + 0.1 * value_loss)

        return iteration

    visited = []

    def aggregated():
        tokens, *_ = write()
        written = tokens[:, PROMPT:].tolist()
        prefixes = tokenizer.batch_decode([row[:t] for row in written for t in range(HORIZON)])
        given_prompts = [text for text in tokenizer.batch_decode(tokens[:, :PROMPT]) for _ in range(HORIZON)]
        wanted = tokenizer([expert(*asked) for asked in zip(given_prompts, prefixes, strict=True)])["input_ids"]
        visited.extend(zip(tokens, torch.tensor(wanted).view(ROWS, HORIZON), strict=True))
        for _ in range(UPDATES):
            drawn = [visited[i] for i in torch.randint(len(visited), (ROWS,))]
            tokens, wanted = (torch.stack([text[k] for text in drawn]) for k in range(2))
            logits = logits_of(model, states(model, tokens))
            step(functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()))

    makers = {"sac": soft_actor_critic, "ilql": implicit_q, "gail": adversarial}
    if name in makers:
        return makers[name]()
    loops = {
        "trpo": trust_region, "bc": cloned, "dpo": chosen, "expert-iteration": chosen, "soft-q": action_values, "dqn": action_values,
        "dagger": aggregated,
    }  # fmt: skip
    return loops.get(name, grouped if name in GROUPS else actor_critic)


def trl(name, folder, turns):
    """TRL's trainer; it owns the loop, so a callback takes the turns."""
    import trl as library
    from datasets import Dataset
    from transformers import TrainerCallback

    class TakeTurns(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % (EPOCHS * PARTS) == 0:
                control.should_training_stop = not turns.next({})

    make_config, trainer = {"rloo": (library.RLOOConfig, library.RLOOTrainer), "grpo": (library.GRPOConfig, library.GRPOTrainer)}[name]
    config = make_config(
        output_dir=tempfile.mkdtemp(), max_completion_length=HORIZON, num_generations=GROUPS[name], per_device_train_batch_size=ROWS // PARTS,
        steps_per_generation=PARTS, num_iterations=EPOCHS, beta=KL, learning_rate=LEARNING_RATE, max_steps=10_000, report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, bf16=False, gradient_checkpointing=False,
        generation_kwargs={"min_new_tokens": HORIZON}, dataloader_num_workers=0,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": prompts(folder) * 50})
    reward = lambda completion_ids, **_: [score(ids) for ids in completion_ids]  # noqa: E731
    trainer(folder, reward, config, data, callbacks=[TakeTurns()]).train()


# --- turns ------------------------------------------------------------------------------------------------------------------------------


def child(variant, folder):
    """Serve one variant's iterations."""
    import logging
    import warnings

    output = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # libraries print
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, _, name = variant.partition(" ")
    turns = Turns(output, warm_up=True)
    if kind == "trl":
        trl(name, folder, turns)
        return
    iteration = {"textgym": ours, "raw": raw}[kind](name, folder)
    iteration()
    while turns.next({}):
        iteration()


def main():
    """Print a table of medians with ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--agents", default=",".join(SETTINGS))
    parser.add_argument("--trl", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child[:2])
        return
    print("| agent | tokens per CPU second | raw | textgym / raw | TRL | textgym / TRL |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        if start_child("make", folder, "small", 0).wait():
            raise SystemExit("the model could not be made")
        for name in options.agents.split(","):
            kinds = ["textgym", "raw", *(["trl"] if options.trl and name in TRL else [])]
            found = compare(folder, HORIZON, [f"{kind} {name}" for kind in kinds], options.rounds, script=__file__)
            steps = {f["steps"] for figures in found.values() for f in figures}
            if len(steps) > 1:
                raise SystemExit(f"{name}: iterations of {sorted(steps)} optimizer steps: not the same work")
            seconds = {kind: [f["cpu_seconds"] for f in found[f"{kind} {name}"]] for kind in kinds}
            cells = [name, span([ROWS * HORIZON / s for s in seconds["textgym"]])]
            for kind in ("raw", "trl"):
                if kind in seconds:
                    ratios = [theirs / mine for mine, theirs in zip(seconds["textgym"], seconds[kind], strict=True)]
                    cells += [f"{ROWS * HORIZON / median(seconds[kind]):,.0f}", span(ratios, 2)]
                else:
                    cells += ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
