"""Detecting prompts that ask for what a model was not trained on, by words and by sentence embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from diffsplat.data.english_nouns import singular_of
from diffsplat.data.object_labels import read_table
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.errors import listed
from diffsplat.images.color_words import COLOR_WORDS
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.prompt_simplification import LONGEST_NAME, named_objects, plain_caption

FAR = 0.65
"""Cosine below which a prompt without a known word is far from all of them; see docs/model-card.md for its errors."""
_NEAREST = 3
_SHORTEST_MISTYPED = 4
_AT_ONCE = 64
_SUBJECTS = ("i", "we", "you", "he", "she", "they", "it")
"""Words after which "saw" is not a tool."""


class SentenceEncoder(Protocol):
    """A text encoder with sentence vectors."""

    def __call__(self, texts: list[str], /) -> TextCondition:
        """Encode texts; pooled are unit vectors ``[B, D]``."""
        ...

    def is_one_piece(self, word: str) -> bool:
        """Whether the vocabulary holds the whole word."""
        ...


class KnownWords:
    """The words of a model and their embeddings.

    Args:
        words: what it was trained on.
        encoder: of the model.
        of_text: what its denoiser of text alone was trained on; None for none.
    """

    def __init__(
        self, words: TrainingVocabulary, encoder: SentenceEncoder, of_text: TrainingVocabulary | None = None
    ) -> None:
        self.words = words
        self.of_text = of_text
        given = {**{noun: noun for noun in words.nouns}, **words.names}
        self._names = {**{singular_of(name): noun for name, noun in given.items()}, **given}
        self._encoder = encoder

    def notice(self, prompt: str) -> str | None:
        """One sentence when the model was trained on nothing like what the prompt asks for, None otherwise."""
        words = re.findall(r"[\w'-]+", prompt.lower())
        small = {*read_table("function_words")["empty"], *COLOR_WORDS}
        content = [word for word in words if word not in small]
        if not content or self._names_any(words):
            return None
        if float(self._similarity([f"a {' '.join(content)}"]).max()) >= FAR:
            return None
        nearest = self._nearest([*content, *_joined(content, 2)])
        return (
            f"the model was trained on nothing like {prompt!r}; the nearest that it knows: {listed(nearest)}"
        )

    def caption(self, prompt: str) -> str:
        """What a long prompt asks for as a short caption; short prompts stay, see :func:`plain_caption`."""
        return plain_caption(prompt, self._name_of)

    def are_of_text(self, caption: str) -> bool:
        """Whether the denoiser of text alone knows every object that a caption names, and it names some."""
        nouns = {self._names[name] for name in named_objects(caption, self._name_of)}
        return self.of_text is not None and bool(nouns) and nouns <= self.of_text.nouns.keys()

    def _name_of(self, words: Sequence[str]) -> str | None:
        """The known name that words in a row spell, in the plural or with a typing error too."""
        spelled = " ".join(words)
        single = " ".join([*words[:-1], singular_of(words[-1])])
        name = next((form for form in (spelled, single) if form in self._names), None)
        return self._meant(spelled) if name is None and len(words) == 1 else name

    def _names_any(self, words: Sequence[str]) -> bool:
        """Whether a word or a few together are a known name, in the plural or with a typing error too."""
        nouns = [
            word for before, word in zip(("", *words[:-1]), words, strict=True) if before not in _SUBJECTS
        ]
        spelled = (nouns, [singular_of(word) for word in nouns])
        if any(
            name in self._names
            for form in spelled
            for length in range(1, LONGEST_NAME + 1)
            for name in _joined(form, length)
        ):
            return True
        return any(self._meant(word) for word in words)

    def _meant(self, word: str) -> str | None:
        """The known name that a word with a typing error stands for, None for none."""
        if len(word) < _SHORTEST_MISTYPED or self._encoder.is_one_piece(word):
            return None
        names = (name for name in self._names if len(name) >= _SHORTEST_MISTYPED)
        return next((name for name in names if is_one_slip(word, name)), None)

    def _nearest(self, texts: list[str]) -> list[str]:
        """The three nouns that are nearest to any of the texts, the nearest first."""
        best = self._similarity(texts).amax(dim=0)
        order = best.argsort(descending=True).tolist()
        nouns = list(self._names.values())
        return list(dict.fromkeys(nouns[index] for index in order))[:_NEAREST]

    def _similarity(self, texts: Iterable[str]) -> Tensor:
        """Cosines ``[texts, names]``."""
        return self._embedded([*texts]) @ self._table.T

    @cached_property
    def _table(self) -> Tensor:
        return self._embedded([f"a {name}" for name in self._names])

    @torch.no_grad()
    def _embedded(self, texts: list[str]) -> Tensor:
        chunks = (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE))
        vectors = (self._encoder(chunk).pooled for chunk in chunks)
        return torch.cat([vector.float().cpu() for vector in vectors if vector is not None])


def _joined(words: Sequence[str], length: int) -> Iterator[str]:
    """So many words in a row."""
    return (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))


def is_one_slip(one: str, other: str) -> bool:
    """Whether two words differ in one letter, one letter more or less, or two neighbours swapped."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    same = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    one, other = one[same:], other[same:]
    swapped = one[:2] == other[:2][::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]
