"""Diagnosis: the rules by which the doctor names what went wrong in a training run, one function each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.experiments.run_record import Curve, RunRecord

# Thresholds, each with its reason.
LOGP_DIFFERENCE = 1e-3  # nats: cached and packed passes differ by 1e-6 in float32; bfloat16 rounds at 1e-2
KL_ERRORS = 4.0  # standard errors below 0; of the mean of log π/π_ref, whose mean square is 2 · k2
KL_MARGIN = 1e-3  # nats: nothing to speak of
ENTROPY_LEFT = 0.15  # of the entropy at the start; healthy runs of a few nats per token of KL keep more than a third
FAR = 0.5  # nats per token: farther from the starting model than a default run goes
VALUE_SHARE = 10.0  # vf_coef · value loss; the policy's term is of order 1 (advantages are normalised), and both share one clipped gradient
VALUE_LOSSES = ("critic_loss", "q_loss", "v_loss")  # mean squares, of agents that log them apart
VALUE_GROWTH = 50.0  # times the start
VALUE_RANGE = 10.0  # times the rewards' size: a KL penalty adds a few units to what values are to be, but no tenfold
TERM_SHARE = 0.95  # of the weighted standard deviations: the others together are a twentieth
LONGER, SHORTER = 1.5, 0.5  # times the length in the first two iterations; eight standard errors with 32 texts each, three with 4
SAME_TEXT, SAME_LABEL = 0.8, 0.98  # of the texts that are one and the same; labels repeat by nature
NO_SPREAD = 1e-3  # of the reward's size: nothing to prefer
SPREAD_LEFT = 0.1  # of the reward's standard deviation at the start
UNMOVED = 1e-6  # nats per token: rounding
FALL_ERRORS = 4.0  # standard errors
FEW_ROWS = 3  # iterations below which a curve is none


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run.

    Attributes:
        name: Of the rule.
        tokens: Where it was seen first, tokens spent.
        seen: What was seen, with values.
        causes: What it most likely comes from.
        advice: What to do.
    """

    name: str
    tokens: int
    seen: str
    causes: str
    advice: str


def stopped(run: RunRecord) -> Finding | None:
    """Learning ended with an error, or left the finite numbers."""
    where = int(run.rows[-1]["tokens"]) if run.rows else 0
    bad = next((n for n in run.names("train/") if n != "train/explained_variance" and not np.isfinite(run.curve(n).values).all()), None)
    if not run.failure and bad is None:
        return None
    if bad is not None:
        curve = run.curve(bad)
        where = int(curve.tokens[~np.isfinite(curve.values)][0])
    seen = run.failure or f"{bad} is no finite number"
    if run.failure and not run.failure.startswith("DivergenceError"):
        return Finding("stopped", where, seen, "the error says what", "mend it and go on with textgym train --resume")
    causes = "a learning rate that is too high, a reward of huge scale, or half-precision weights"
    return Finding(
        "stopped", where, seen, causes, f"lower learning_rate (now {run.setting('learning_rate')}), divide the reward, use dtype float32"
    )


def ratio_not_one(run: RunRecord) -> Finding | None:
    """The first pass of an update does not find the log-probabilities that the texts were written with."""
    curve = run.curve("train/sampling_logp_difference").finite
    over = np.flatnonzero(curve.values > LOGP_DIFFERENCE)
    if not over.size:
        return None
    where = int(over[0])
    low, high = (run.curve(f"train/importance_sampling_ratio_{end}").values[where] for end in ("min", "max"))
    seen = f"|log π_update − log π_sampling| is {curve.values[where]:.2g} nats before the first gradient, the ratio {low:.3g} to {high:.3g}, not 1"
    dtype = str(run.setting("dtype", "float32"))
    if dtype != "float32":
        causes = (
            f"rounding in {dtype}: cached and whole passes round differently; or dropout, another temperature or another mask in the update"
        )
        return Finding(
            "ratio-not-one", int(curve.tokens[where]), seen, causes, "use dtype float32, or accept ratios that are off by so much"
        )
    if high <= 1 + LOGP_DIFFERENCE:
        causes = "every token is less probable in the update: it allows tokens that sampling does not (mask, top-k)"
        advice = "use one mask for sampling and evaluate_actions (allowed_tokens, top_k, _allowed_after)"
    elif low >= 1 - LOGP_DIFFERENCE:
        causes = "every token is more probable in the update: sampling allows tokens that it does not (mask, top-k)"
        advice = "use one mask for sampling and evaluate_actions (allowed_tokens, top_k, _allowed_after)"
    else:
        causes = "dropout that only training has, or a temperature that sampling and evaluate_actions do not share"
        advice = "set the model's dropout to 0; apply one SamplingRule in both; check that nothing changes weights in between"
    return Finding("ratio-not-one", int(curve.tokens[where]), seen, causes, advice)


def negative_kl(run: RunRecord) -> Finding | None:
    """The mean of log π/π_ref over written tokens is below 0 by more than chance, which it cannot be for tokens drawn from π."""
    curve, k2 = run.curve("rollout/kl").finite, run.curve("rollout/kl_k2").finite
    if len(curve) < FEW_ROWS or len(k2) != len(curve):
        return None
    half = len(curve) // 2
    n_tokens = int(curve.tokens[-1] - curve.tokens[half - 1])
    mean = float(curve.values[half:].mean())
    error = float(np.sqrt(2 * k2.values[half:].mean() / max(1, n_tokens)))
    if mean >= -KL_ERRORS * error - KL_MARGIN:
        return None
    return Finding(
        "negative-kl",
        int(curve.tokens[half]),
        f"the KL with the reference model is {mean:.3f} nats per token in the second half, {-mean / max(error, 1e-12):.0f} standard errors below 0",
        "the tokens were not drawn from the policy whose log-probabilities are used (stale or foreign texts, another temperature or mask than "
        "the reference model's), or the estimator has the wrong sign",
        "take log-probabilities from the policy that wrote the text, under the same SamplingRule as the reference's; k1 is log π − log π_ref",
    )


def entropy_collapse(run: RunRecord) -> Finding | None:
    """The policy has become nearly certain, and not because it has solved the task."""
    loss = run.curve("train/entropy_loss").finite
    if len(loss) < FEW_ROWS or run.solved:
        return None
    entropy = Curve(loss.tokens, -loss.values)
    first, last = float(entropy.values[0]), float(np.median(entropy.last_third))
    kl = run.curve("rollout/kl").finite
    far = len(kl) > 0 and abs(float(kl.values[-1])) > FAR
    if last >= ENTROPY_LEFT * first or not (far or _gain(run.curve("rollout/ep_rew_mean").finite)[0] <= 0):
        return None
    where = int(entropy.tokens[np.flatnonzero(entropy.values < ENTROPY_LEFT * first)[0]])
    return Finding(
        "entropy-collapse",
        where,
        f"entropy fell from {first:.2f} to {last:.2f} nats per token" + (f", KL {kl.values[-1]:.2f}" if far else ""),
        f"a learning rate that is too high ({run.setting('learning_rate')}), a KL penalty that is too weak ({_shown(run, 'kl_coef')}), or too "
        "many passes over the same texts",
        "raise kl_coef or ent_coef, lower learning_rate or n_epochs; start from an earlier checkpoint, for exploration does not come back",
    )


def value_loss_explosion(run: RunRecord) -> Finding | None:
    """The value loss is so large that it takes the clipped gradient for itself, or grows without end."""
    curve = run.curve("train/value_loss").finite
    if not len(curve):
        return None
    coefficient = float(run.setting("vf_coef", 1.0))
    first, last = float(np.median(curve.first_third)), float(np.median(curve.last_third))
    if coefficient * last <= VALUE_SHARE and not (len(curve) >= FEW_ROWS and last > max(1.0, VALUE_GROWTH * first)):
        return None
    spread = run.curve("rollout/ep_rew_std").finite
    size = f"; the reward's standard deviation is {float(np.median(spread.values)):.3g}" if len(spread) else ""
    return Finding(
        "value-loss-explosion",
        int(curve.tokens[np.argmax(curve.values)]),
        f"the value loss is {last:.3g} (first {first:.3g}), times vf_coef {coefficient * last:.3g} beside a policy loss of order 1{size}",
        "a reward of large scale, or values that run away (learning rate, shared weights)",
        "scale the reward to a standard deviation of about 1 (whiten, or a weight below 1); lower vf_coef or learning_rate",
    )


def runaway_values(run: RunRecord) -> Finding | None:
    """The values that an agent bootstraps from are far greater than any reward there is, or are missed by as much."""
    targets = run.curve("train/target_mean").finite
    if not len(targets):
        return None
    losses = {name: curve for name in VALUE_LOSSES if len(curve := run.curve(f"train/{name}").finite)}
    losses = losses or {"loss": run.curve("train/loss").finite}
    curves = {"target_mean": Curve(targets.tokens, np.abs(targets.values))}
    curves |= {f"√{name}": Curve(curve.tokens, np.sqrt(np.abs(curve.values))) for name, curve in losses.items() if len(curve)}
    mean, spread = run.curve("rollout/ep_rew_mean").finite, run.curve("rollout/ep_rew_std").finite
    if len(mean) and len(spread):
        size = float(np.abs(mean.values).max() + 3 * spread.values.max())
    else:  # an agent that reads: its texts' rewards are not in the metrics, but what it began with is
        size = max(*(abs(float(p["reward"])) for p in run.evaluations), *(float(np.median(c.first_third)) for c in curves.values()), 0.0)
    limit = VALUE_RANGE * max(size, 1.0)
    worst = max(curves, key=lambda name: float(curves[name].last_third.max()))
    last = float(curves[worst].last_third.max())
    if last <= limit:
        return None
    where = int(curves[worst].tokens[np.flatnonzero(curves[worst].values > limit)[0]])
    return Finding(
        "runaway-values",
        where,
        f"{worst} reaches {last:.3g}, where rewards are of the size {size:.3g}",
        "values that are learnt from values: a learning rate that is too high, a target network that follows too fast, or targets of one step "
        "without an end in sight",
        f"lower learning_rate (now {run.setting('learning_rate')}), value_lr_scale (now {run.setting('value_lr_scale')}) or tau (now "
        f"{run.setting('tau')}); raise path_lambda (now {run.setting('path_lambda')}) towards 1",
    )


def dominating_term(run: RunRecord) -> Finding | None:
    """Of several reward terms, one alone decides what is learnt."""
    for name in run.names("rollout/", "_share"):
        curve = run.curve(name).finite
        if len(curve) and (share := float(curve.values.mean())) > TERM_SHARE:
            term = name.removeprefix("rollout/").removesuffix("_share")
            return Finding(
                "dominating-term",
                int(curve.tokens[0]),
                f"the reward term {term!r} has {share:.1%} of the spread of all terms",
                "its weight or its scale is far greater than the others', which teach nothing",
                f"lower the weight of {term!r}, or bring every term to a standard deviation of 1 before weighing",
            )
    return None


def length_drift(run: RunRecord) -> Finding | None:
    """Texts have become much longer or much shorter."""
    curve = run.curve("rollout/ep_len_mean").finite
    if len(curve) < FEW_ROWS or run.solved:
        return None
    first, last = float(curve.values[:2].mean()), float(curve.last_third.mean())
    if SHORTER * first <= last <= LONGER * first:
        return None
    past = curve.values > LONGER * first if last > first else curve.values < SHORTER * first
    ended = run.curve("rollout/stopped").finite
    way = "longer" if last > first else "shorter"
    return Finding(
        "length-drift",
        int(curve.tokens[np.flatnonzero(past)[0]]) if past.any() else int(curve.tokens[-1]),
        f"texts grew {way}: {first:.1f} to {last:.1f} tokens; {ended.values[0]:.0%} ended by themselves at first, {ended.values[-1]:.0%} at last",
        f"the reward pays for {way} texts, of itself or by a sum over tokens or sentences",
        "look at reward against length (textgym reward redteam), divide by the length or add a term length(target=N); a wanted length is no fault",
    )


def identical_outputs(run: RunRecord) -> Finding | None:
    """Whatever the prompt, the policy writes the same text."""
    common, different = run.curve("rollout/most_common").finite, run.curve("rollout/different").finite
    if not len(common) or run.solved:
        return None
    limit = SAME_LABEL if run.task is not None and run.task.labels else SAME_TEXT
    share = float(np.median(common.last_third))
    if share < limit or share <= float(np.median(different.last_third)):  # a single text is both the most common and all different
        return None
    where = int(common.tokens[np.flatnonzero(common.values >= limit)[0]])
    return Finding(
        "identical-outputs",
        where,
        f"{share:.0%} of the texts of an iteration are the same text",
        "mode collapse: one text that the reward likes, a learning rate that is too high, or no KL penalty",
        "raise kl_coef, lower learning_rate, reward variety (distinct-n, self-bleu); read the texts in result.json",
    )


def reward_saturation(run: RunRecord) -> Finding | None:
    """All texts get the same reward, so that nothing can be preferred."""
    spread, mean = run.curve("rollout/ep_rew_std").finite, run.curve("rollout/ep_rew_mean").finite
    if len(spread) < FEW_ROWS or run.solved:
        return None
    first, last = float(spread.first_third.mean()), float(spread.last_third.mean())
    size = max(float(np.abs(mean.values).max()), 1e-12)
    advice = "use a reward that tells good texts from better ones: its value before a threshold, sigmoid or clip, or a wider range"
    if first < NO_SPREAD * size:
        seen = f"all texts get the reward {mean.values[0]:.3g} from the start (standard deviation {first:.2g})"
        return Finding("reward-saturation", int(spread.tokens[0]), seen, "a reward that is clipped, saturated or constant", advice)
    if last >= SPREAD_LEFT * first:
        return None
    seen = f"the reward's standard deviation fell from {first:.2g} to {last:.2g}, at a mean of {mean.values[-1]:.3g}"
    where = int(spread.tokens[np.flatnonzero(spread.values < SPREAD_LEFT * first)[0]])
    return Finding("reward-saturation", where, seen, "the reward's bound is reached, or all texts have become alike", advice)


def no_learning(run: RunRecord) -> Finding | None:
    """The policy writes what the untrained model writes."""
    points = run.evaluations
    if len(points) < FEW_ROWS or not run.rows or run.solved:
        return None
    kls = np.array([p.get("kl", np.nan) for p in points], np.float64)
    if np.isfinite(kls).all():
        unmoved = bool((np.abs(kls) < UNMOVED).all())
    else:
        unmoved = len({(p["reward"], p["length"], p["distinct_1"], p["distinct_2"]) for p in points}) == 1
    if not unmoved:
        return None
    return Finding(
        "no-learning",
        int(points[-1]["tokens"]),
        f"after {points[-1]['tokens']:,} tokens the policy writes as the untrained model does: reward {points[-1]['reward']:.3g} at all "
        f"{len(points)} evaluations",
        f"a learning rate of next to nothing ({run.setting('learning_rate')}), advantages that are all 0 (every text gets the same reward), or "
        "frozen weights",
        "raise learning_rate; look at ep_rew_std, grad_norm and clip_fraction in metrics.csv",
    )


def falling_reward(run: RunRecord) -> Finding | None:
    """The reward that is learnt from goes down."""
    curve = run.curve("rollout/ep_rew_mean").finite
    if len(curve) < 3 * FEW_ROWS:
        return None
    gain, error = _gain(curve)
    if gain >= -FALL_ERRORS * error or error == 0:
        return None
    return Finding(
        "falling-reward",
        int(curve.tokens[-len(curve.last_third)]),
        f"the reward fell from {curve.first_third.mean():.3g} to {curve.last_third.mean():.3g}, {-gain / error:.0f} standard errors",
        "steps that are too large, a KL penalty that outweighs the reward, or a sign that is wrong in a reward or loss",
        f"lower learning_rate (now {run.setting('learning_rate')}) or kl_coef (now {_shown(run, 'kl_coef')}); check the reward's sign",
    )


RULES: tuple[Callable[[RunRecord], Finding | None], ...] = (
    stopped,
    ratio_not_one,
    negative_kl,
    entropy_collapse,
    value_loss_explosion,
    runaway_values,
    dominating_term,
    length_drift,
    identical_outputs,
    reward_saturation,
    no_learning,
    falling_reward,
)


def diagnose(run: RunRecord) -> list[Finding]:
    """Return everything that the rules find wrong with a run, in their order."""
    return [finding for rule in RULES if (finding := rule(run)) is not None]


def _gain(curve: Curve) -> tuple[float, float]:
    """Return how much the mean of the last third is above that of the first, and its standard error."""
    if len(curve) < 2:
        return 0.0, 0.0

    def error(part: NDArray[np.float64]) -> float:
        return float(part.std(ddof=1) ** 2 / len(part)) if len(part) > 1 else 0.0

    first, last = curve.first_third, curve.last_third
    return float(last.mean() - first.mean()), float(np.sqrt(error(first) + error(last)))


def _shown(run: RunRecord, name: str) -> str:
    value = run.setting(name)
    logged = run.curve(f"rollout/{name}").finite
    return f"{logged.values[-1]:g}" if value is None and len(logged) else str(value)
