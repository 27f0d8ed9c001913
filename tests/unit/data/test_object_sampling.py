"""Weights of nouns by hand, and orders of epochs by counting."""

import numpy as np

from diffsplat.data.object_sampling import EpochOrder, epoch_order, noun_weights


def rows(**nouns):
    """Nouns and names of so many objects of a noun each."""
    pairs = [(noun, f"{noun}{index}") for noun, count in nouns.items() for index in range(count)]
    return [noun for noun, _ in pairs], [name for _, name in pairs]


def test_rare_nouns_count_more_and_common_ones_less():
    """One frog counts as 4, 30 chairs as 24, 10 tables as 10: 38 for 41 rows."""
    weights = noun_weights(*rows(frog=1, chair=30, table=10))
    np.testing.assert_allclose(weights * 38 / 41, [4.0] + [24 / 30] * 30 + [1.0] * 10)


def test_repainted_versions_share_the_weight_of_their_object():
    nouns, names = rows(chair=5)
    names += [f"chair0#{color}" for color in ("red", "blue", "green")]
    weights = noun_weights(nouns + ["chair"] * 3, names)
    np.testing.assert_allclose(weights[1:5], weights[1])
    np.testing.assert_allclose(weights[[0, 5, 6, 7]], weights[1] / 4)


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


def test_epochs_follow_each_other_without_weights_and_with_them():
    order = EpochOrder(7, 5)
    first, second = (np.random.default_rng([5, epoch]).permutation(7).tolist() for epoch in (0, 1))
    assert order.rows(range(5, 12)) == first[5:] + second[:5]
    assert order.rows([6, 0]) == [first[6], first[0]]
    weights = np.array([0.5, 1.5, 1.0])
    weighed = EpochOrder(3, 5, weights)
    assert weighed.rows(range(6)) == [*epoch_order(weights, 5, 0), *epoch_order(weights, 5, 1)]
