"""Dropout of conditions against its probabilities and its intervals."""

import pytest
import torch

from diffsplat.models.text.text_condition import TextCondition
from diffsplat.training.condition_dropout import DroppedConditions

TEXT = TextCondition(torch.ones(4, 3, 2), torch.ones(4, 3, dtype=torch.bool), torch.ones(4, 5))
EMPTY = TextCondition(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 5))


def test_intervals():
    dropped = DroppedConditions.at(torch.tensor([0.0, 0.09, 0.1, 0.19, 0.2, 0.29, 0.3, 0.9]), 0.1)
    assert dropped.text.tolist() == [True, True, True, True, False, False, False, False]
    assert dropped.image.tolist() == [False, False, True, True, True, True, False, False]


def test_probabilities():
    torch.manual_seed(0)
    dropped = DroppedConditions.draw(100_000, 0.05)
    both = (dropped.text & dropped.image).float().mean()
    text_alone = (dropped.text & ~dropped.image).float().mean()
    image_alone = (~dropped.text & dropped.image).float().mean()
    assert [float(both), float(text_alone), float(image_alone)] == pytest.approx([0.05] * 3, abs=0.003)


def test_nothing_is_dropped_at_rate_zero():
    dropped = DroppedConditions.at(torch.zeros(3), 0.0)
    assert not dropped.text.any()
    assert not dropped.image.any()


def test_text_mask_and_pooled_text_are_replaced_together():
    dropped = DroppedConditions(torch.tensor([True, False, True, False]), torch.zeros(4, dtype=torch.bool))
    text = dropped.apply_to_text(TEXT, EMPTY)
    assert text.mask is not None
    assert text.pooled is not None
    for part in (text.tokens, text.mask, text.pooled):
        assert part.flatten(1).all(dim=1).tolist() == [False, True, False, True]
        assert part.flatten(1).any(dim=1).tolist() == [False, True, False, True]


def test_text_without_mask_or_pooled_text():
    dropped = DroppedConditions(torch.tensor([True, False]), torch.zeros(2, dtype=torch.bool))
    text = dropped.apply_to_text(TextCondition(torch.ones(2, 3, 2)), TextCondition(torch.zeros(3, 2)[None]))
    assert (text.mask, text.pooled) == (None, None)


def test_image_latents_become_zero():
    dropped = DroppedConditions(torch.zeros(2, dtype=torch.bool), torch.tensor([False, True]))
    assert dropped.apply_to_image(torch.ones(2, 4, 2, 2)).sum(dim=(1, 2, 3)).tolist() == [16, 0]


def test_impossible_rates():
    with pytest.raises(ValueError, match=r"dropout rate of conditions is 0\.4"):
        DroppedConditions.draw(2, 0.4)
