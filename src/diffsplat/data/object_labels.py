"""What an object is called: labels from its name in a collection."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from diffsplat.images.color_words import COLOR_WORDS


@dataclass(frozen=True)
class Label:
    """What an object is.

    Args:
        noun: the plain noun, such as ``chair``.
        phrase: the fuller name, such as ``desk chair``; often equal to the noun.
        synonyms: other nouns that are true of it.
        material: a word such as ``wooden`` when the collection gives it.
        colored: whether captions name colours of it; not of people.
    """

    noun: str
    phrase: str
    synonyms: tuple[str, ...] = ()
    material: str = ""
    colored: bool = True


@dataclass(frozen=True)
class Collection:
    """A table of ``diffsplat/data/collections``: how the names of a collection become labels, and its credits.

    Args:
        source: name of the collection.
        phrases: the phrase of a name, or phrase and noun where the noun does not follow from the phrase
            (:func:`noun_of`); an empty phrase where a name is no object. Other names are their own phrase.
        skipped: regular expression of names that are no objects.
        wooden: regular expression of names of wooden objects.
        ignored_words: words of a name, besides colours, that tell apart versions of an object.
        people: names or categories of people, who are never repainted.
        skipped_categories: categories without objects.
        ignored_tags: tags that say nothing of the object.
        license, creator: where they are the same for the whole collection.
    """

    source: str
    phrases: dict[str, str | list[str]]
    skipped: str
    wooden: str
    ignored_words: Sequence[str]
    people: Sequence[str]
    skipped_categories: Sequence[str] = ()
    ignored_tags: Sequence[str] = ()
    license: str = "unknown"
    creator: str = "unknown"

    @staticmethod
    def load(name: str) -> Collection:
        """The collection of the table ``name``."""
        return Collection(**read_table(name))

    def is_skipped(self, name: str) -> bool:
        """Whether objects of this name are left out."""
        return re.search(self.skipped, name) is not None

    def without_ignored(self, words: list[str]) -> list[str]:
        """The words that tell different objects apart."""
        return [word for word in words if word not in COLOR_WORDS and word not in self.ignored_words]

    def label(self, name: str, phrase: str | None = None) -> Label | None:
        """The label of an object, None for what is no object.

        Args:
            name: in the collection.
            phrase: used when the table does not list the name, which is its own phrase by default.
        """
        entry = self.phrases.get(name, phrase or name)
        phrase, noun = (entry, None) if isinstance(entry, str) else entry
        material = "wooden" if re.search(self.wooden, name) else ""
        return label_of(phrase, noun, material) if phrase else None


def label_of(phrase: str, noun: str | None = None, material: str = "") -> Label:
    """A label with the synonyms of its noun, which is that of the phrase when None."""
    noun = noun or noun_of(phrase)
    return Label(noun, phrase, tuple(read_table("object_nouns")["synonyms"].get(noun, ())), material)


def noun_of(phrase: str) -> str:
    """The head of a phrase: before "with" or "and", the last word or known compound."""
    nouns = read_table("object_nouns")
    words = re.split(r" with | and |, ", phrase)[0].split()
    compounds = (" ".join(words[-length:]) for length in (3, 2))
    known = (compound for compound in compounds if compound in nouns["compounds"])
    return next(known, nouns["last_words"].get(words[-1], words[-1]))


@cache
def read_table(name: str) -> dict[str, Any]:
    """A table of ``diffsplat/data/collections``."""
    return tomllib.loads(files("diffsplat.data.collections").joinpath(f"{name}.toml").read_text("utf-8"))
