"""Weights of nouns by hand, and orders of epochs by counting."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffsplat.data.object_sampling import epoch_order, noun_weights


def rows(**nouns):
    """So many objects of a noun each."""
    return [SimpleNamespace(noun=n, object_id=f"{n}{i}") for n, count in nouns.items() for i in range(count)]


def test_rare_nouns_count_more_and_common_ones_less():
    """One frog counts as 4, 30 chairs as 24, 10 tables as 10: 38 for 41 rows."""
    weights = noun_weights(rows(frog=1, chair=30, table=10))
    np.testing.assert_allclose(weights * 38 / 41, [4.0] + [24 / 30] * 30 + [1.0] * 10)


def test_repainted_versions_share_the_weight_of_their_object():
    items = rows(chair=5)
    items += [
        SimpleNamespace(noun="chair", object_id=f"chair0#{color}") for color in ("red", "blue", "green")
    ]
    weights = noun_weights(items)
    np.testing.assert_allclose(weights[1:5], weights[1])
    np.testing.assert_allclose(weights[[0, 5, 6, 7]], weights[1] / 4)


@pytest.mark.parametrize(("least", "most"), [(0, 4), (5, 4)])
def test_limits_are_checked(least, most):
    with pytest.raises(ValueError, match="expected 1 <= least <= most"):
        noun_weights(rows(frog=1), least=least, most=most)


def test_an_epoch_holds_each_row_as_often_as_its_weight_says():
    weights = np.array([0.25, 0.5, 1.0, 2.25, 1.0])
    counts = np.array([np.bincount(epoch_order(weights, 3, epoch), minlength=5) for epoch in range(2000)])
    assert (counts.sum(axis=1) == 5).all()
    assert (counts >= np.floor(weights)).all()
    assert (counts <= np.ceil(weights)).all()
    np.testing.assert_allclose(counts.mean(axis=0), weights, atol=0.05)


def test_equal_weights_give_permutations_that_follow_seed_and_epoch():
    one = epoch_order(np.ones(50), 0, 0)
    assert sorted(one) == list(range(50))
    assert one.tolist() == epoch_order(np.ones(50), 0, 0).tolist()
    assert one.tolist() != epoch_order(np.ones(50), 0, 1).tolist()
    assert one.tolist() != epoch_order(np.ones(50), 1, 0).tolist()
