"""The losses have the values and gradients of their formulas, and recover a known reward at the rate that statistics promises."""

import math

import numpy as np
import pytest
import torch
from torch import tensor

from textgym.reward_modeling import losses

RNG = np.random.default_rng(0)
N = 7


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def draw(*shape):
    return RNG.normal(size=shape)


def gradients(loss, *arrays):
    """Return the loss and its gradients by autograd, to be compared with formulas written by hand."""
    given = [tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    value = loss(*given)
    value.backward()
    return float(value.detach()), [g.grad.numpy() for g in given]


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_squared_error():
    predicted, rating = draw(N), draw(N)
    value, (grad,) = gradients(lambda p: losses.squared_error(p, tensor(rating)), predicted)
    agree(value, np.mean((predicted - rating) ** 2))
    agree(grad, 2 * (predicted - rating) / N)


def test_heteroscedastic_is_the_likelihood_of_the_single_ratings():
    mean, log_variance, ratings = draw(N), draw(N), draw(N, 5)
    r, v = ratings.mean(1), ratings.var(1)
    value, (d_mean, d_log) = gradients(lambda m, s: losses.heteroscedastic(m, s, tensor(r), tensor(v)), mean, log_variance)
    inverse = np.exp(-log_variance)
    agree(value, np.mean(0.5 * (log_variance[:, None] + (ratings - mean[:, None]) ** 2 * inverse[:, None])))
    agree(d_mean, (mean - r) * inverse / N)
    agree(d_log, 0.5 * (1 - ((r - mean) ** 2 + v) * inverse) / N)


def test_cross_entropy():
    logits, label = draw(N, 4), RNG.integers(0, 4, N)
    value, (grad,) = gradients(lambda x: losses.cross_entropy(x, tensor(label)), logits)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    agree(value, -np.mean(np.log(p[np.arange(N), label])))
    agree(grad, (p - np.eye(4)[label]) / N)


def test_ordinal_cross_entropy():
    latent, thresholds, label = draw(N), np.sort(draw(3)), np.array([0, 1, 2, 3, 0, 2, 3])
    value, (d_latent, d_thresholds) = gradients(lambda x, t: losses.ordinal_cross_entropy(x, t, tensor(label)), latent, thresholds)
    above = np.concatenate([np.ones((N, 1)), sigmoid(latent[:, None] - thresholds), np.zeros((N, 1))], axis=1)  # P(label > k - 1)
    upper, lower = above[np.arange(N), label], above[np.arange(N), label + 1]
    agree(value, -np.mean(np.log(upper - lower)))
    slope_upper, slope_lower = upper * (1 - upper), lower * (1 - lower)
    agree(d_latent, -(slope_upper - slope_lower) / (upper - lower) / N)
    by_hand = np.zeros(3)
    for i, k in enumerate(label):
        if k > 0:
            by_hand[k - 1] += slope_upper[i] / (upper - lower)[i] / N
        if k < 3:
            by_hand[k] -= slope_lower[i] / (upper - lower)[i] / N
    agree(d_thresholds, by_hand)


def test_ordinal_probabilities_sum_to_one():
    log_probs = losses.ordinal_log_probs(tensor([-40.0, 0.0, 40.0]), tensor([-1.0, 0.5, 2.0]))
    np.testing.assert_allclose(log_probs.exp().sum(1), 1, rtol=1e-6)
    assert torch.isfinite(log_probs).all()


def test_bradley_terry_with_margin():
    chosen, rejected, margin = draw(N), draw(N), RNG.random(N)
    value, (d_chosen, d_rejected) = gradients(lambda c, r: losses.bradley_terry(c, r, tensor(margin)), chosen, rejected)
    gap = chosen - rejected - margin
    agree(value, -np.mean(np.log(sigmoid(gap))))
    agree(d_chosen, -sigmoid(-gap) / N)
    agree(d_rejected, sigmoid(-gap) / N)


TIE = np.array([True, False, False, True, False, False, True])


def test_davidson():
    a, b, log_nu = draw(N), draw(N), draw()
    value, (d_a, d_b, d_nu) = gradients(lambda c, r, v: losses.davidson(c, r, tensor(TIE), v), a, b, log_nu)
    parts = np.stack([np.exp(a), np.exp(b), np.exp(log_nu + (a + b) / 2)])
    win, _, tie = parts / parts.sum(0)
    agree(value, -np.mean(np.log(np.where(TIE, tie, win))))
    agree(d_a, -(np.where(TIE, 0.5, 1.0) - win - tie / 2) / N)
    agree(d_b, -d_a)
    agree(d_nu, -np.mean(TIE - tie))


def test_davidson_without_ties_is_bradley_terry():
    a, b, margin = tensor(draw(N)), tensor(draw(N)), tensor(RNG.random(N))
    none = torch.zeros(N, dtype=torch.bool)
    found = losses.davidson(a, b, none, tensor(-torch.inf, dtype=torch.float64), margin)
    agree(found, losses.bradley_terry(a, b, margin))


def test_rao_kupper():
    a, b, log_theta = draw(N), draw(N), np.array(0.7)
    value, (d_a, d_b, d_theta) = gradients(lambda c, r, t: losses.rao_kupper(c, r, tensor(TIE), t), a, b, log_theta)
    theta, pa, pb = math.exp(0.7), np.exp(a), np.exp(b)  # as in the paper
    win, loss = pa / (pa + theta * pb), pb / (theta * pa + pb)
    tie = (theta**2 - 1) * pa * pb / ((pa + theta * pb) * (theta * pa + pb))
    agree(win + loss + tie, 1)
    agree(value, -np.mean(np.log(np.where(TIE, tie, win))))
    agree(d_a, -np.where(TIE, loss - win, 1 - win) / N)
    agree(d_b, -d_a)
    more = 2 * theta**2 / (theta**2 - 1)
    agree(d_theta, -np.mean(np.where(TIE, more - (1 - win) - (1 - loss), -(1 - win))))


def test_multi_task_leaves_unknown_aspects_out():
    predicted, ratings = draw(N, 2), draw(N, 2)
    ratings[2:, 1] = np.nan
    value, (grad,) = gradients(lambda p: losses.multi_task(p, tensor(ratings), tensor([1.0, 3.0], dtype=torch.float64)), predicted)
    errors = predicted - ratings
    agree(value, (np.mean(errors[:, 0] ** 2) + 3 * np.mean(errors[:2, 1] ** 2)) / 4)
    by_hand = np.zeros((N, 2))
    by_hand[:, 0] = 2 * errors[:, 0] / N / 4
    by_hand[:2, 1] = 3 * 2 * errors[:2, 1] / 2 / 4
    agree(grad, by_hand)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def through_norm(x, grad):
    """Return the gradient before normalisation, from that after it."""
    u = unit(x)
    return (grad - u * (u * grad).sum(1, keepdims=True)) / np.linalg.norm(x, axis=1, keepdims=True)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_info_nce():
    first, second, t = draw(N, 5), draw(N, 5), 0.3
    value, (d_first, d_second) = gradients(lambda a, b: losses.info_nce(a, b, t), first, second)
    logits = unit(first) @ unit(second).T / t
    rows, columns = softmax(logits, 1), softmax(logits, 0)
    agree(value, -np.mean(np.log(np.diag(rows)) + np.log(np.diag(columns))) / 2)
    d_logits = (rows + columns - 2 * np.eye(N)) / (2 * N)
    agree(d_first, through_norm(first, d_logits @ unit(second) / t))
    agree(d_second, through_norm(second, d_logits.T @ unit(first) / t))


def test_moco():
    query, key, queue, t = draw(N, 5), draw(N, 5), unit(draw(11, 5)), 0.3
    value, (d_query,) = gradients(lambda q: losses.moco(q, tensor(key), tensor(queue), t), query)
    q, k = unit(query), unit(key)
    logits = np.concatenate([(q * k).sum(1, keepdims=True), q @ queue.T], axis=1) / t
    p = softmax(logits, 1)
    agree(value, -np.mean(np.log(p[:, 0])))
    agree(d_query, through_norm(query, ((p[:, :1] - 1) * k + p[:, 1:] @ queue) / t / N))


# --- statistics ----------------------------------------------------------------------------------------------------------------------


def fitted(loss_of, d):
    """Return the weights (d,) that minimise a loss of theirs."""
    w = torch.zeros(d, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss_of(w)
        value.backward()
        return value

    optimizer.step(closure)
    return w.detach().numpy()


def rating_loss(rng, x, w):
    x, y = tensor(x), tensor(x @ w + rng.normal(size=len(x)))
    return lambda v: losses.squared_error(x @ v, y)


def pair_loss(rng, x, w):
    gap = x - rng.normal(size=x.shape)
    gap = np.where((rng.random(len(x)) < sigmoid(gap @ w))[:, None], gap, -gap)  # chosen minus rejected
    gap = tensor(gap)
    return lambda v: losses.bradley_terry(gap @ v, torch.zeros(len(gap), dtype=torch.float64))


def tied_pair_loss(rng, x, w):
    a, b = x @ w, np.zeros(len(x))
    parts = np.stack([np.exp(a), np.exp(b), np.exp((a + b) / 2)])  # log nu = 0, known
    u = rng.random(len(x)) * parts.sum(0)
    tie, lost = u > parts[0] + parts[1], (u > parts[0]) & (u <= parts[0] + parts[1])
    x, tie = tensor(np.where(lost[:, None], -x, x)), tensor(tie)
    zeros = torch.zeros(len(x), dtype=torch.float64)
    return lambda v: losses.davidson(x @ v, zeros, tie, torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("make", [rating_loss, pair_loss, tied_pair_loss])
def test_a_known_linear_reward_is_recovered_at_the_rate_of_the_square_root(make):
    sizes, d, n_seeds = (250, 1000, 4000), 6, 60
    w = np.random.default_rng(1).normal(size=d)
    squared = np.zeros((len(sizes), n_seeds))
    for row, n in enumerate(sizes):
        for seed in range(n_seeds):
            rng = np.random.default_rng([seed, n])
            squared[row, seed] = np.sum((fitted(make(rng, rng.normal(size=(n, d)), w), d) - w) ** 2)
    again = np.random.default_rng(2).integers(0, n_seeds, (2000, len(sizes), n_seeds))  # a bootstrap over the data sets of each size
    drawn = np.take_along_axis(np.broadcast_to(squared, again.shape), again, 2)
    slopes = np.polyfit(np.log(sizes), np.log(np.sqrt(drawn.mean(2))).T, 1)[0]
    low, high = np.percentile(slopes, [2.5, 97.5])
    assert low < -0.5 < high, (low, high)
    assert high - low < 0.15, (low, high)
    assert math.sqrt(squared[-1].mean()) < 0.15
