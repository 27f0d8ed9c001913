"""What a mesh shows, from the name of its file: ``bottle_A_green`` is a green bottle."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from diffsplat.data.object_labels import Label, label_of, named_colors, noun_of, read_table
from diffsplat.data.object_manifest import built_in_phrases
from diffsplat.images.color_words import ColorWord

_JOINING = ("of", "with", "and", "on", "in")
_NAMELESS = "object"


def label_of_file_name(stem: str) -> Label:
    """The label of an object whose file has this name, without its suffix.

    Numbers, single letters and words of the trade (``LOD0``, ``final``) are dropped, adjectives go before the noun,
    and colours are kept apart. ``table_coffee`` is a coffee table: the other order occurs in no known collection.
    """
    words = [word for word in _words(stem) if word not in read_table("file_name_words")["ignored"]]
    colors = _colors(words)
    words = [word for word in words if word not in colors]
    if words[-1:] == ["and"]:
        words = words[:-1]
    if set(_JOINING).isdisjoint(words):
        together = re.search(r"[a-z][A-Z]", stem) is not None
        words = _in_english_order(words, turnable=not together)
    phrase = " ".join(words) or _NAMELESS
    label = label_of(phrase, noun_of(re.split(r" of | in | on ", phrase)[0]))
    return replace(label, colors=colors)


def _words(stem: str) -> list[str]:
    """Lower-case words of two letters or more; joined words are split at capitals and digits."""
    stem = re.sub(r"(?i)\bcopy of\b", " ", stem.replace("_", " "))
    if re.fullmatch(r"(?i)[0-9a-f -]{8,}", stem) and re.search(r"\d", stem):
        return []  # a checksum or a UUID
    stem = re.sub(
        r"(?i)\b(?:low|high|mid) poly\b|\bv\.?\d[\w.]*|\bLOD\d+|\b\d+k\b|\b\d+x\d+\b|\b\d+d\b", " ", stem
    )
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    words = re.sub(r"[^\w']|\d", " ", stem).lower().split()
    return [read_table("file_name_words")["spelling"].get(word, word) for word in words if len(word) > 1]


def _colors(words: list[str]) -> tuple[ColorWord, ...]:
    """The colours among the words; the last word left is an object, such as an orange."""
    found = named_colors(words)
    return found if set(words) - set(found) else ()


def _in_english_order(words: list[str], *, turnable: bool) -> list[str]:
    """Adjectives by their kind, then the noun; names written together, as ``deskLamp``, are not turnable."""
    ranks = {
        word: rank for rank, group in enumerate(read_table("file_name_words")["adjectives"]) for word in group
    }
    described = sorted((word for word in words if word in ranks), key=ranks.__getitem__)
    named = [word for word in words if word not in ranks]
    return described + (_noun_last(named) if turnable and len(named) > 1 else named)


def _noun_last(words: list[str]) -> list[str]:
    """``lamp desk`` as ``desk lamp``, where only that is known or where only the first word is a known noun."""
    turned = [*words[1:], words[0]]
    phrases, nouns = _known()
    if " ".join(words) in phrases:
        return words
    return turned if " ".join(turned) in phrases or (words[0] in nouns and words[-1] not in nouns) else words


@cache
def _known() -> tuple[frozenset[str], frozenset[str]]:
    """Phrases of the collections that come with the package, and their last words."""
    phrases = built_in_phrases()
    return phrases, frozenset(noun_of(phrase).split()[-1] for phrase in phrases)
