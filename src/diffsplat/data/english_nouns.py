"""Singular and plural of English nouns, and the head of a phrase."""

from __future__ import annotations

import re

from diffsplat.data.object_labels import read_table

_REST = re.compile(r" (?:with|of|on|in|full|covering|holding|made) .*")


def split_head(phrase: str) -> tuple[str, str]:
    """What an object is, and what is said of it after that: ``bowl`` and `` with fruits``."""
    rest = _REST.search(phrase)
    return (phrase, "") if rest is None else (phrase[: rest.start()], phrase[rest.start() :])


def has_no_singular(head: str) -> bool:
    """Whether "a" is not said with a noun phrase: plurals, and uncountable nouns such as ``bread``."""
    nouns = read_table("object_nouns")
    last = head.rsplit(maxsplit=1)[-1]
    if any(f" {head}".endswith(f" {noun}") for noun in nouns["uncountable"]):
        return True
    return last.endswith("s") and not last.endswith(("ss", "us")) and last not in nouns["singular_in_s"]


def plural_of(phrase: str) -> str:
    """``crates of apples``, ``knives``, ``women in a dress``; what has no singular stays as it is."""
    head, rest = split_head(phrase)
    if has_no_singular(head):
        return phrase
    *before, last = head.split()
    irregular = read_table("object_nouns")["irregular_plurals"]
    if last in irregular:
        plural = irregular[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        plural = f"{last}es"
    else:
        plural = re.sub(r"(?<=[^aeiou])y$", "ie", last) + "s"
    return " ".join([*before, plural]) + rest


def singular_of(word: str) -> str:
    """The singular of a word; a word that is not a plural is returned unchanged."""
    for singular, plural in read_table("object_nouns")["irregular_plurals"].items():
        if word == plural:
            return singular
    if has_no_singular(word) and word.endswith("s"):
        word = word[:-1]
        if word.endswith("ie") and len(word) > 3:
            return f"{word[:-2]}y"
        if word.endswith(("sse", "xe", "che", "she")):
            return word[:-1]
    return word
