"""Encoded captions on disk, against the encoder itself."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsplat.models.text.text_condition import TextCondition
from diffsplat.training.prompt_table import PromptTable

TEXTS = ["", "a chair", "a very long table with legs", "chair"]


class LetterEncoder:
    """One token a letter and an end, so that texts differ in length; counts its calls."""

    def __init__(self, *, masked: bool = True, pooled: bool = False) -> None:
        self.masked, self.pooled, self.calls = masked, pooled, 0

    def __call__(self, texts: list[str]) -> TextCondition:
        self.calls += 1
        length = 40
        tokens = torch.zeros(len(texts), length, 2)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            for place, letter in enumerate(text + "."):
                tokens[row, place] = torch.tensor([ord(letter), place])
                mask[row, place] = True
        sums: Tensor = tokens.sum(dim=1)
        return TextCondition(tokens, mask if self.masked else None, sums if self.pooled else None)


def test_masked_prompts_come_back_without_the_padding_of_the_table(tmp_path: Path) -> None:
    encoder = LetterEncoder()
    table = PromptTable.open(tmp_path, TEXTS, lambda: encoder, b"key")
    found, expected = table(["chair", "a chair"]), encoder(["chair", "a chair"])
    assert found.mask is not None
    assert expected.mask is not None
    assert found.tokens.shape == (2, 8, 2)
    torch.testing.assert_close(found.tokens, expected.tokens[:, :8])
    assert torch.equal(found.mask, expected.mask[:, :8])
    assert found.pooled is None
    letters = sum(len(text) + 1 for text in TEXTS)
    (stored,) = tmp_path.glob("*/tokens.bin")
    assert stored.stat().st_size == letters * 2 * 2


def test_prompts_without_a_mask_keep_their_length_and_pooled_vector(tmp_path: Path) -> None:
    encoder = LetterEncoder(masked=False, pooled=True)
    table = PromptTable.open(tmp_path, TEXTS, lambda: encoder, b"key")
    found, expected = table(TEXTS[::-1]), encoder(TEXTS[::-1])
    assert found.mask is None
    assert found.pooled is not None
    assert expected.pooled is not None
    torch.testing.assert_close(found.tokens, expected.tokens)
    torch.testing.assert_close(found.pooled, expected.pooled)


def test_prompts_are_encoded_once_for_each_encoder_and_list(tmp_path: Path) -> None:
    encoder = LetterEncoder()
    for _ in range(2):
        PromptTable.open(tmp_path, TEXTS, lambda: encoder, b"key")
    assert encoder.calls == 1
    PromptTable.open(tmp_path, TEXTS, lambda: encoder, b"other weights")
    PromptTable.open(tmp_path, TEXTS[:2], lambda: encoder, b"key")
    assert encoder.calls == 3


def test_an_interrupted_table_is_made_again(tmp_path: Path) -> None:
    def broken() -> LetterEncoder:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PromptTable.open(tmp_path, TEXTS, broken, b"key")
    assert PromptTable.open(tmp_path, TEXTS, LetterEncoder, b"key")(["chair"]).tokens.shape == (1, 6, 2)
