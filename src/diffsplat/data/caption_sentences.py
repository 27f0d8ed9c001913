"""Captions as people write them: requests, other word orders, empty adjectives, plurals and typing errors.

They name the same object as a plain caption, so that a long prompt comes to mean what its short form means.
"""

from __future__ import annotations

import numpy as np

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data.caption_phrases import said_color, with_article
from diffsplat.data.english_nouns import plural_of
from diffsplat.data.object_labels import Label
from diffsplat.images.color_words import ColorWord

_REQUESTS = (
    "make {0}",
    "please make {0}",
    "please create {0} for me",
    "i want {0}",
    "i need {0} for my game",
    "i would like to have {0}",
    "can you make {0}",
    "could you draw {0} please",
    "give me {0}",
    "show me {0}",
    "generate {0}",
    "a picture of {0}",
    "a photo of {0}",
    "a render of {0}",
    "a 3d object: {0}",
    "a low poly model of {0}",
    "this is {0}",
    "it is {0}",
    "{0} please",
    "{0}, 3d asset",
)
_TAILS = (
    "on a white background",
    "for my game",
    "for a video game",
    "with a simple shape",
    "with many details",
    "with clean lines",
    "in a cartoon style",
    "in low poly style",
    "as a game asset",
    "seen from all sides",
    "standing alone",
    "without a background",
    "in soft light",
    "that looks nice",
    "that looks like a toy",
    "which i can put into my scene",
    "like you would find it anywhere",
    "high quality",
    "highly detailed",
    "4k",
)
_EMPTY = (
    *(
        "nice",
        "beautiful",
        "pretty",
        "cute",
        "simple",
        "lovely",
        "great",
        "cool",
        "good",
        "normal",
        "typical",
    ),
    *("ordinary", "perfect", "realistic", "stylized", "low poly", "cartoon", "detailed", "little", "fancy"),
)
_COLORED = (
    "{name} in {color}",
    "{name} that is {color}",
    "{name} which is painted {color}",
    "{name} of {color} color",
    "{name}, colored {color}",
)
_MANY = ("two {0}", "three {0}", "some {0}", "a few {0}", "many {0}", "{0}", "a pair of {0}", "a set of {0}")
_MANY_UNCOUNTED = ("some {0}", "a lot of {0}", "{0}")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def sentences(label: Label, colors: tuple[ColorWord, ...]) -> tuple[str, ...]:
    """Four free captions of an object, the same for the same label and colours.

    In order: a longer sentence, another word order, a plural, and a sentence with typing errors.
    """
    random = np.random.default_rng(stable_seed(f"{label.noun}/{label.phrase}/{'/'.join(colors)}"))
    shown = colors if label.colored else ()
    names = (label.phrase, label.noun, *label.synonyms)

    def pick(texts: tuple[str, ...]) -> str:
        return texts[int(random.integers(len(texts)))]

    def described() -> str:
        name, adjectives = pick(names), [pick(_EMPTY)] if random.random() < 0.7 else []
        return with_article(" ".join([*adjectives, *said_color(name, shown).split(), name]))

    long = f"{pick(_REQUESTS).format(described())} {pick(_TAILS)}"
    name = pick(names)
    color = said_color(name, shown)
    turned = pick(_COLORED).format(name=with_article(name), color=color) if color else described()
    if random.random() < 0.5:
        turned = f"{turned} {pick(_TAILS)}"
    name = pick(names)
    plural = plural_of(name)
    several = pick(_MANY if plural != name else _MANY_UNCOUNTED).format(
        f"{said_color(name, shown)} {plural}".strip()
    )
    wrong = with_typing_errors(
        f"{described()} {pick(_TAILS)}" if random.random() < 0.5 else described(), random
    )
    return tuple(dict.fromkeys((long, turned, several, wrong)))


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
