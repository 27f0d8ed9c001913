"""Captions as people write them: requests, other word orders, empty adjectives, plurals and typing errors.

They name the same object as a plain caption, so that a long prompt comes to mean what its short form means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data.caption_phrases import color_phrase, with_article
from diffsplat.data.english_nouns import plural_of
from diffsplat.data.object_labels import Label, read_table
from diffsplat.images.color_words import ColorWord

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def sentences(label: Label, colors: tuple[ColorWord, ...]) -> tuple[str, ...]:
    """Four free captions of an object, the same for the same label and colours.

    In order: a longer sentence, another word order, a plural, and a sentence with typing errors.
    """
    random = np.random.default_rng(stable_seed(f"{label.noun}/{label.phrase}/{'/'.join(colors)}"))
    shown = colors if label.colored else ()
    names = (label.phrase, label.noun, *label.synonyms)
    templates = read_table("caption_templates")

    def pick(texts: Sequence[str]) -> str:
        return texts[int(random.integers(len(texts)))]

    def tail() -> str:
        return pick(templates["tails"])

    def described() -> str:
        name = pick(names)
        adjectives = [pick(templates["empty_adjectives"])] if random.random() < 0.7 else []
        return with_article(" ".join([*adjectives, *color_phrase(name, shown).split(), name]))

    long = pick(templates["requests"]).format(described()) + f" {tail()}"
    name = pick(names)
    color = color_phrase(name, shown)
    turned = pick(templates["colored"]).format(name=with_article(name), color=color) if color else described()
    if random.random() < 0.5:
        turned = f"{turned} {tail()}"
    name = pick(names)
    plural = plural_of(name)
    number = "several" if plural != name else "several_uncounted"
    several = pick(templates[number]).format(f"{color_phrase(name, shown)} {plural}".strip())
    wrong = f"{described()} {tail()}" if random.random() < 0.5 else described()
    return tuple(dict.fromkeys((long, turned, several, with_typing_errors(wrong, random))))


def with_typing_errors(text: str, random: np.random.Generator) -> str:
    """The text with one wrong letter, or two in a longer text, in words of four letters or more."""
    words = text.split()
    long = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    for place in random.permutation(long)[: 1 + (len(long) > 3)]:
        words[place] = _mistyped(words[place], random)
    return " ".join(words)


def _mistyped(word: str, random: np.random.Generator) -> str:
    place = int(random.integers(1, len(word) - 1))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    kind = int(random.integers(4))
    if kind == 0:
        return before + after
    if kind == 1:
        return before + letter + letter + after
    if kind == 2:
        return before + after[0] + letter + after[1:]
    row = next((row for row in _KEYS if letter in row), letter)
    near = row[max(0, row.index(letter) - 1)]
    return before + (near if near != letter else row[min(1, len(row) - 1)]) + after
