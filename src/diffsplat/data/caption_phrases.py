"""Captions of an object from its noun, its phrase and its colours."""

from __future__ import annotations

import re
from dataclasses import replace

from diffsplat.data.english_nouns import has_no_singular, split_head
from diffsplat.data.object_labels import Label, read_table
from diffsplat.images.color_words import COLOR_WORDS, ColorWord

_VOWELS = "aeiouéà"
_SOUNDS_LIKE_YOU = ("uni", "uri", "ute", "use")
_SILENT_H = ("hour", "heir", "honest")
_WOOD = "wooden"
_PAINTED_OVER = re.compile(rf"\b(?:{_WOOD}|gold|golden|silver|{'|'.join(COLOR_WORDS)}) (?=\w)")


def with_article(words: str) -> str:
    """``a red chair``, ``an orange`` or, for plurals and uncountable nouns, the words alone."""
    if has_no_singular(split_head(words)[0]):
        return words
    vowel = words.startswith(_SILENT_H) or (words[0] in _VOWELS and not words.startswith(_SOUNDS_LIKE_YOU))
    return f"{'an' if vowel else 'a'} {words}"


def painted(label: Label) -> Label:
    """The label of an object that was repainted: nobody would call a pink barrel wooden, or a blue coin golden."""
    phrase = _PAINTED_OVER.sub("", label.phrase)
    return replace(label, phrase=phrase, material="", captions=())


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
    """Several phrasings, the plainest first, all lower case and without repeats.

    A name that is a colour already (``gold coin``) gets no second one.
    """
    names = list(dict.fromkeys([label.phrase, label.noun, *label.synonyms]))
    lines: list[str] = []
    for name in names:
        color = color_phrase(name, colors)
        described = _described(label, name)
        if color and label.colored:
            lines += [with_article(f"{color} {name}"), f"{name}, {color}"]
            lines += [
                f"a 3d model of {with_article(f'{color} {name}')}",
                with_article(f"{color} {described}"),
            ]
        lines += [with_article(described)]
    if not (colors and label.colored):
        lines += [f"a 3d model of {with_article(names[0])}", names[0]]
    return tuple(dict.fromkeys(lines))


def color_phrase(name: str, colors: tuple[ColorWord, ...]) -> str:
    """The colours as words; none before a name that is a colour already."""
    colored = _PAINTED_OVER.sub("", name) != name and _WOOD not in name
    return "" if colored else " and ".join(colors)


def _described(label: Label, name: str) -> str:
    return name if not label.material or label.material in name else f"{label.material} {name}"
