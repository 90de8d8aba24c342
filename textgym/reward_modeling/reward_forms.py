"""Reward forms: what a discriminator's verdict on a step pays, and what the steps after a text's end pay."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from textgym.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

Form: TypeAlias = Literal["positive", "negative", "log-odds"]
FORMS = ("positive", "negative", "log-odds")


def check_form(form: str) -> None:
    """Raise for a reward form that does not exist."""
    if form not in FORMS:
        raise InvalidArgumentError(f"the form of a discriminator's reward must be one of {', '.join(FORMS)}, got {form!r}")


def reward_of(log_odds: "Tensor", form: Form, clip: float) -> "Tensor":
    """Return the reward of steps, of the argument's shape, where D is the probability that the expert took the step.

    "positive": −log(1 − D), never below 0: every further token pays, so a text is worth prolonging. "negative": log D, never above 0: every
    further token costs, so it is worth ending. "log-odds": log D − log(1 − D), which has either sign, and on the policy's own texts is
    negative on average: it ends texts where the discriminator is good, and prolongs them where it errs. Absorbing states take the bias
    from all three, because every text then has the same number of steps.

    Args:
        log_odds: log(D / (1 − D)).
        form: As above.
        clip: Log-odds are cut to ±clip before.

    References:
        "positive", "negative": Ho and Ermon 2016, arXiv:1606.03476 (their D is the probability of the policy); "log-odds": Fu et al. 2018,
        arXiv:1710.11248 (AIRL); the biases: Kostrikov et al. 2019, arXiv:1809.02925 (DAC), section 4.1.
    """
    from torch.nn import functional

    log_odds = log_odds.clamp(-clip, clip)
    if form == "positive":
        return functional.softplus(log_odds)
    return -functional.softplus(-log_odds) if form == "negative" else log_odds


def absorbing_return(reward: float, n_steps: int, gamma: float = 1.0) -> float:
    """Return Σ_{k=1}^{n} γ^k r: what `n_steps` in the absorbing state, each paying `reward`, are worth to the step that leads there."""
    return reward * (n_steps if gamma == 1.0 else gamma * (1 - gamma**n_steps) / (1 - gamma))
