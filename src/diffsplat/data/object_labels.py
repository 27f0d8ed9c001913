"""What an object is called: labels from its name in a collection."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from diffsplat.images.color_words import COLOR_WORDS, ColorWord


@dataclass(frozen=True)
class Label:
    """What an object is.

    Args:
        noun: the plain noun, such as ``chair``.
        phrase: the fuller name, such as ``desk chair``; often equal to the noun.
        synonyms: other nouns that are true of it.
        material: a word such as ``wooden`` when the collection gives it.
        colored: whether captions name colours of it; not of people.
        colors: that the source names; those of its renders where it names none.
        captions: of the source, which take the place of those made from the other fields.
    """

    noun: str
    phrase: str
    synonyms: tuple[str, ...] = ()
    material: str = ""
    colored: bool = True
    colors: tuple[ColorWord, ...] = ()
    captions: tuple[str, ...] = ()


def label_of(phrase: str, noun: str | None = None, material: str = "", *, colored: bool = True) -> Label:
    """A label with the synonyms of its noun, which is that of the phrase when None."""
    nouns = read_table("object_nouns")
    plain = nouns["last_words"].get(noun, noun) if noun else noun_of(phrase)
    synonyms = tuple(nouns["synonyms"].get(plain, ()))
    return Label(plain, phrase, synonyms, material, colored)


def noun_of(phrase: str) -> str:
    """The head of a phrase: before "with" or "and", the last word or known compound."""
    nouns = read_table("object_nouns")
    words = re.split(r" with | and |, ", phrase)[0].split()
    compounds = (" ".join(words[-length:]) for length in (3, 2))
    known = (compound for compound in compounds if compound in nouns["compounds"])
    return next(known, nouns["last_words"].get(words[-1], words[-1]))


def named_colors(words: Sequence[str]) -> tuple[ColorWord, ...]:
    """The colours among words, in their order."""
    return tuple(sorted((color for color in COLOR_WORDS if color in words), key=words.index))


@cache
def read_table(name: str) -> dict[str, Any]:
    """A table of ``diffsplat/data``."""
    return tomllib.loads(files("diffsplat.data").joinpath(f"{name}.toml").read_text("utf-8"))
