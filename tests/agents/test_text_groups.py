"""Groups and splits of texts: where they lie, which differ, which is best, what belongs to which text."""

from types import SimpleNamespace

import numpy as np

from textgym.learning.micro_batches import split_by_text
from textgym.learning.text_groups import differing_groups, groups_of, place_of_best, total_rewards

NAN = np.nan


def test_groups_differ_by_known_rewards_alone():
    rewards = np.array([1.0, 1.0, NAN, 1.0, 0.0, NAN, NAN, NAN, NAN, 2.0, NAN, NAN])
    assert groups_of(12, 3) == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    assert differing_groups(rewards, 3) == [slice(3, 6)]


def test_the_best_is_the_first_of_the_known_ones():
    assert place_of_best(np.array([NAN, 1.0, 3.0, 3.0])) == 2
    assert place_of_best(np.array([NAN, NAN])) == 0


def test_numbers_go_back_to_their_texts():
    texts = [SimpleNamespace(action_ids=np.zeros(n), rewards=np.full(n, 0.5)) for n in (2, 1, 3)]
    assert [part.tolist() for part in split_by_text(np.arange(6), texts)] == [[0, 1], [2], [3, 4, 5]]
    assert split_by_text(np.zeros(0), []) == []
    assert total_rewards(texts).tolist() == [1.0, 0.5, 1.5]
