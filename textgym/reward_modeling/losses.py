"""Losses: what reward models are fitted by, as functions of outputs and judgements; each is a mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional

LOG_VARIANCE_LIMIT = 7.0  # |log variance|; beyond it exp() would let single texts rule the gradient


def weighted_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean of `values` (n,), weighted by `weight` (n,) >= 0 where given."""
    return values.mean() if weight is None else (values * weight).sum() / weight.sum().clamp_min(1e-12)


def squared_error(predicted: Tensor, rating: Tensor) -> Tensor:
    """Return the mean squared error of predicted ratings (n,)."""
    return ((predicted - rating) ** 2).mean()


def heteroscedastic(mean: Tensor, log_variance: Tensor, rating: Tensor, rater_variance: Tensor) -> Tensor:
    """Return the negative log-likelihood, in nats per rating, of Gaussian raters: predicted mean and log variance, (n,) each.

    The mean over a text's raters of (log s2 + (r - mean)^2 / s2) / 2 depends on their ratings r only through their mean `rating` and their
    variance `rater_variance` (of the population, 0 for a single rater). Nix and Weigend (1994), "Estimating the Mean and Variance of the
    Target Probability Distribution", ICNN.
    """
    log_variance = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
    return (0.5 * (log_variance + ((rating - mean) ** 2 + rater_variance) * torch.exp(-log_variance))).mean()


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of class logits (n, classes) on labels (n,) int64, in nats."""
    return functional.cross_entropy(logits, label)


def expert_or_policy(log_odds: Tensor, is_expert: bool, smoothing: float = 0.0) -> Tensor:
    """Return −y log D − (1 − y) log(1 − D) of each verdict, nats, of the argument's shape; D = σ(log_odds) is the probability of the expert.

    y is 1 − `smoothing` for steps of the expert and `smoothing` for steps of the policy. Ho and Ermon 2016, arXiv:1606.03476, equation 17.
    """
    target = torch.full_like(log_odds, 1 - smoothing if is_expert else smoothing)
    return functional.binary_cross_entropy_with_logits(log_odds, target, reduction="none")


def ordinal_cross_entropy(latent: Tensor, thresholds: Tensor, label: Tensor) -> Tensor:
    """Return the negative log-likelihood of ordered classes under P(label > k) = sigmoid(latent - thresholds[k]), in nats.

    McCullagh (1980), "Regression Models for Ordinal Data", JRSS B 42(2): the proportional-odds model.

    Args:
        latent: (n,).
        thresholds: (classes - 1,), increasing.
        label: Ranks, (n,) int64.
    """
    return -ordinal_log_probs(latent, thresholds).gather(1, label[:, None]).mean()


def ordinal_log_probs(latent: Tensor, thresholds: Tensor) -> Tensor:
    """Return log P(label = k), (n, classes), of the proportional-odds model."""
    above = latent[:, None] - thresholds  # (n, classes - 1): logit of P(label > k)
    # P(k) = sigmoid(above[k-1]) - sigmoid(above[k]) = sigmoid(above[k-1]) sigmoid(-above[k]) (1 - exp(-(thresholds[k] - thresholds[k-1])))
    gaps = torch.log(-torch.expm1(-(thresholds[1:] - thresholds[:-1]).clamp_min(1e-6)))
    inner = functional.logsigmoid(above[:, :-1]) + functional.logsigmoid(-above[:, 1:]) + gaps
    return torch.cat([functional.logsigmoid(-above[:, :1]), inner, functional.logsigmoid(above[:, -1:])], dim=1)


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Return -log sigmoid(chosen - rejected - margin), averaged over pairs: scores (n,) each, in nats.

    Bradley and Terry (1952), "Rank Analysis of Incomplete Block Designs", Biometrika 39; the margin as in Touvron et al. (2023), "Llama 2",
    arXiv:2307.09288, section 3.2.2: a pair that was judged far apart must be scored far apart.
    """
    gap = chosen - rejected
    return -functional.logsigmoid(gap if margin is None else gap - margin).mean()


def davidson(chosen: Tensor, rejected: Tensor, tie: Tensor, log_nu: Tensor, margin: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of pairs with ties, in nats: P(win) : P(loss) : P(tie) = e^a : e^b : nu e^((a + b) / 2).

    Davidson (1970), "On Extending the Bradley-Terry Model to Accommodate Ties in Paired Comparison Experiments", JASA 65.

    Args:
        chosen, rejected: Scores a and b, (n,).
        tie: (n,) bool.
        log_nu: How common ties are; -inf gives Bradley-Terry.
        margin: (n,), taken off the gap of pairs that are no ties.
    """
    half = (chosen - rejected) / 2
    if margin is not None:
        half = half - margin * (~tie) / 2
    log_total = torch.logsumexp(torch.stack([half, -half, log_nu.expand_as(half)]), dim=0)
    return (log_total - torch.where(tie, log_nu, half)).mean()


def rao_kupper(chosen: Tensor, rejected: Tensor, tie: Tensor, log_theta: Tensor) -> Tensor:
    """Return the negative log-likelihood of pairs with ties, in nats: P(win) = sigmoid(a - b - log theta), a tie what remains.

    Rao and Kupper (1967), "Ties in Paired-Comparison Experiments", JASA 62: two texts closer than log theta > 0 cannot be told apart.

    Args:
        chosen, rejected: Scores a and b, (n,).
        tie: (n,) bool.
        log_theta: The threshold, > 0, a scalar.
    """
    gap = chosen - rejected
    win, loss = functional.logsigmoid(gap - log_theta), functional.logsigmoid(-gap - log_theta)
    # P(tie) = (theta^2 - 1) sigmoid(gap - log theta) sigmoid(-gap - log theta)
    log_tie = win + loss + torch.log(torch.expm1(2 * log_theta.clamp_min(1e-6)))
    return -torch.where(tie, log_tie, win).mean()


def multi_task(predicted: Tensor, ratings: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over aspects of their mean squared errors; nan marks an aspect that a text was not judged by.

    Args:
        predicted, ratings: (n, aspects).
        weights: (aspects,); None for 1 each.
    """
    known = ~torch.isnan(ratings)
    errors = torch.where(known, predicted - torch.nan_to_num(ratings), torch.zeros_like(predicted)) ** 2
    per_aspect = errors.sum(0) / known.sum(0).clamp_min(1)
    return weighted_mean(per_aspect, weights)


def length_correlation(outputs: Tensor, log_words: Tensor) -> Tensor:
    """Return the squared correlation of outputs with length over a batch, a mean over the outputs; 0..1.

    Args:
        outputs: (n, outputs).
        log_words: log(1 + words) of the texts, (n,).
    """
    y, x = outputs - outputs.mean(0), log_words - log_words.mean()
    scale = (y**2).sum(0) * (x**2).sum()
    return ((x @ y) ** 2 / scale.clamp_min(1e-9)).mean()


def info_nce(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """Return the contrastive loss of two views of the same texts, (n, d) each, the other texts of the batch being the negatives.

    Cosine similarity over `temperature`; symmetric in the views. Chen et al. (2020), "SimCLR", arXiv:2002.05709; with two dropout masks as
    the views: Gao et al. (2021), "SimCSE", arXiv:2104.08821.
    """
    logits = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T / temperature  # (n, n)
    same = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same)) / 2


def moco(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.05, own_mask: Tensor | None = None) -> Tensor:
    """Return the contrastive loss of queries against their keys, (n, d) each, with the keys of earlier batches as negatives.

    He et al. (2020), "Momentum Contrast", arXiv:1911.05722, algorithm 1.

    Args:
        query: From the encoder that learns.
        key: From the momentum encoder, without gradients.
        queue: Normalised keys of earlier batches, (size, d).
        temperature: Of the cosine similarities.
        own_mask: True where a key of the queue is of the query's own text, which is no negative, (n, size); None where none is.
    """
    query, key = functional.normalize(query, dim=-1), functional.normalize(key.detach(), dim=-1)
    positive = (query * key).sum(-1, keepdim=True)  # (n, 1)
    negative = query @ queue.T  # (n, size)
    if own_mask is not None:
        negative = negative.masked_fill(own_mask, -torch.inf)
    logits = torch.cat([positive, negative], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
