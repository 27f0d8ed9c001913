"""Captions of an object from its noun, its phrase and its colours."""

from __future__ import annotations

import re
from dataclasses import replace

from diffsplat.data.object_labels import Label, read_table
from diffsplat.images.color_words import ColorWord

_VOWELS = "aeiou"
_SOUNDS_LIKE_YOU = ("uni", "uri", "ute", "use")
_WOOD = "wooden"


def with_article(words: str) -> str:
    """``a red chair``, ``an orange`` or, for plurals and uncountable nouns, the words alone."""
    head = re.split(r" (?:with|of|on) ", words)[0].split()[-1]
    nouns = read_table("object_nouns")
    plural = head.endswith("s") and head not in nouns["singular_in_s"]
    if plural or head in nouns["uncountable"]:
        return words
    vowel = words[0] in _VOWELS and not words.startswith(_SOUNDS_LIKE_YOU)
    return f"{'an' if vowel else 'a'} {words}"


def painted(label: Label) -> Label:
    """The label of an object that was repainted: nobody would call a pink barrel wooden."""
    return replace(label, phrase=re.sub(rf"\b{_WOOD} ", "", label.phrase), material="")


def as_seen(label: Label, colors: tuple[ColorWord, ...]) -> Label:
    """The label with the material that the object's main colour gives away: brown furniture is wooden.

    A phrase that says more than the noun may name another material (``leather chair``) and stays as it is.
    """
    plain = not label.material and label.phrase == label.noun
    if (
        not plain
        or colors[:1] != ("brown",)
        or label.noun not in read_table("object_nouns")["wooden_when_brown"]
    ):
        return label
    return replace(label, material=_WOOD)


def captions(label: Label, colors: tuple[ColorWord, ...]) -> tuple[str, ...]:
    """Several phrasings, the plainest first, all lower case and without repeats."""
    color = " and ".join(colors) if label.colored else ""
    names = list(dict.fromkeys([label.phrase, label.noun, *label.synonyms]))
    lines: list[str] = []
    for name in names:
        described = _described(label, name)
        if color:
            lines += [with_article(f"{color} {name}"), f"{name}, {color}"]
            lines += [
                f"a 3d model of {with_article(f'{color} {name}')}",
                with_article(f"{color} {described}"),
            ]
        lines += [with_article(described)]
    if not color:
        lines += [f"a 3d model of {with_article(names[0])}", names[0]]
    return tuple(dict.fromkeys(lines))


def _described(label: Label, name: str) -> str:
    return name if not label.material or label.material in name else f"{label.material} {name}"
