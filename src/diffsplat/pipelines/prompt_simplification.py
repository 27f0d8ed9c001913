"""Shortening a free sentence to the caption of the one object, with its colours, that it asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from diffsplat.data.caption_phrases import with_article
from diffsplat.data.object_labels import read_table
from diffsplat.images.color_words import COLOR_WORDS

NameFinder = Callable[[Sequence[str]], str | None]
"""The known name that words in a row spell, None for none."""

LONGEST_NAME = 3
"""Words of a name in a prompt."""
_LONGEST_CAPTION = 4
"""Words of a prompt that is taken as it is."""
_REACH = 2
"""Words between an object and a colour or preposition that belongs to it."""


@dataclass(frozen=True)
class _Mention:
    """A known name among the words of a prompt, from ``start`` to before ``stop``."""

    name: str
    start: int
    stop: int


def plain_caption(prompt: str, known: NameFinder) -> str:
    """The short caption of what a sentence asks for; the prompt itself where it is short or names nothing known.

    The object is, of all known names, rather one with a colour and one that is neither a part of another ("with a
    lid") nor its surroundings ("on the table"), and else the first. Where all are either, the subject is unknown.
    """
    words = _words(prompt)
    if len([word for word in words if word[0].isalnum()]) <= _LONGEST_CAPTION:
        return prompt
    colors = {place: word for place, word in enumerate(words) if word in COLOR_WORDS}
    mentions = _objects(words, known)
    if not mentions:
        return prompt
    ranks = [_distance_from_subject(words, mention, colors) for mention in mentions]
    part, uncolored, surroundings, _ = min(ranks)
    chosen = mentions[ranks.index(min(ranks))]
    if part or (uncolored and surroundings):  # the subject is something unknown
        return prompt
    color = _color_of(chosen, {place: word for place, word in colors.items() if place != chosen.start}, words)
    return with_article(f"{color} {chosen.name}".strip())


def named_objects(prompt: str, known: NameFinder) -> list[str]:
    """Known names of the objects in a prompt, from left to right; a word for a colour is one only where no other is."""
    return [mention.name for mention in _objects(_words(prompt), known)]


def _words(prompt: str) -> list[str]:
    """Words in lower case, punctuation and the ``'s`` of owners; without "pair of", "would like" and such."""
    words = re.findall(r"[\w'-]+|[,.;:!?]", prompt.lower().replace("'s ", " 's "))
    classes = read_table("function_words")
    idle = {("of", before) for before in classes["amounts"]} | {
        ("like", before) for before in classes["likers"]
    }
    return [word for before, word in zip(("", *words), words, strict=False) if (word, before) not in idle]


def _objects(words: Sequence[str], known: NameFinder) -> list[_Mention]:
    """The known names that stand for objects: no verbs, and colours only where there is nothing else."""
    mentions = [mention for mention in _mentions(words, known) if _is_noun(words, mention)]
    return [mention for mention in mentions if words[mention.start] not in COLOR_WORDS] or mentions


def _mentions(words: Sequence[str], known: NameFinder) -> Iterator[_Mention]:
    """Known names from left to right, the longest at each place."""
    place = 0
    while place < len(words):
        for length in range(min(LONGEST_NAME, len(words) - place), 0, -1):
            name = known(words[place : place + length])
            if name is not None:
                yield _Mention(name, place, place + length)
                place += length
                break
        else:
            place += 1


def _is_noun(words: Sequence[str], mention: _Mention) -> bool:
    classes = read_table("function_words")
    if words[mention.start] not in classes["seldom_nouns"] or mention.stop - mention.start > 1:
        return True
    before = words[mention.start - 1] if mention.start else ""
    return before in classes["articles"] or before in COLOR_WORDS or (not before and words[1:2] == [","])


def _distance_from_subject(
    words: Sequence[str], mention: _Mention, colors: dict[int, str]
) -> tuple[bool, bool, bool, int]:
    """Sorts the mentions of a sentence, the likeliest object first."""
    before = words[max(0, mention.start - _REACH - 1) : mention.start]
    owns = words[mention.stop : mention.stop + 1] == ["'s"]
    return (
        owns or _any_of("parts", before),
        not any(_precedes(place, mention, words) for place in colors),
        _any_of("places", before),
        mention.start,
    )


def _precedes(place: int, mention: _Mention, words: Sequence[str]) -> bool:
    """Whether the colour at a place is said of the mention after it."""
    between = words[place + 1 : mention.start]
    near = place < mention.start and len(between) <= _REACH
    apart = "," in between or any(_any_of(kind, between) for kind in ("articles", "parts", "places"))
    return near and not apart


def _any_of(kind: str, words: Sequence[str]) -> bool:
    """Whether one of the words is a function word of a kind."""
    return not set(words).isdisjoint(read_table("function_words")[kind])


def _color_of(mention: _Mention, colors: dict[int, str], words: Sequence[str]) -> str:
    """``red``, ``red and white``, or nothing: what is said of a mention, else the first colour after it, or any."""
    before = [place for place in colors if _precedes(place, mention, words)]
    if before and before[-1] - 2 in colors and words[before[-1] - 1] == "and":
        return f"{colors[before[-1] - 2]} and {colors[before[-1]]}"
    after = [place for place in colors if place >= mention.stop]
    chosen = [*before[-1:], *after, *colors]
    return colors[chosen[0]] if chosen else ""
