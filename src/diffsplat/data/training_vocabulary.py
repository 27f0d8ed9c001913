"""The nouns that a model was trained on, and other names of the same objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from diffsplat.data.caption_phrases import with_article
from diffsplat.data.object_labels import read_table
from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError
from diffsplat.images.color_words import COLOR_WORDS
from diffsplat.io.json_files import read_json, write_json

WORDS_FILE = "words.json"


@dataclass(frozen=True)
class TrainingVocabulary:
    """What a model can be asked for.

    Args:
        nouns: number of training objects of each noun, most first.
        names: other names of such objects, with their noun.
    """

    nouns: dict[str, int]
    names: dict[str, str]

    @classmethod
    def of(cls, rows: Iterable[ObjectRow]) -> TrainingVocabulary:
        """The words of the training objects among ``rows``; repainted versions count once."""
        counts: Counter[str] = Counter()
        names: dict[str, str] = {}
        for row in rows:
            if row.split != "train" or row.variant:
                continue
            counts[row.noun] += 1
            phrase = _phrase(row.captions[0]) if row.captions else ""
            if phrase and f" {row.noun} " not in f" {phrase} ":
                names[phrase] = row.noun
            names |= dict.fromkeys(read_table("object_nouns")["synonyms"].get(row.noun, ()), row.noun)
        others = {name: noun for name, noun in sorted(names.items()) if name not in counts}
        return cls(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))), others)

    @classmethod
    def from_folder(cls, folder: Path) -> TrainingVocabulary | None:
        """Those of a model folder; None when it does not say.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / WORDS_FILE
        if not path.is_file():
            return None
        stored = read_json(path)
        nouns, names = stored.get("nouns"), stored.get("names", {})
        if not (isinstance(nouns, dict) and isinstance(names, dict) and nouns):
            raise InvalidInputError(f"{str(path)!r} lists no nouns")
        return cls(nouns, names)

    def within(self, whole: TrainingVocabulary) -> TrainingVocabulary:
        """The words of a part of the objects: nouns that it holds at least half of the objects of."""
        kept = {
            noun: count for noun, count in self.nouns.items() if 2 * count >= whole.nouns.get(noun, count)
        }
        return TrainingVocabulary(kept, {name: noun for name, noun in self.names.items() if noun in kept})

    def examples(self) -> tuple[str, ...]:
        """Prompts for the six commonest nouns, each in a colour."""
        return tuple(
            with_article(f"{color} {noun}")
            for noun, color in zip(list(self.nouns)[:6], cycle(COLOR_WORDS), strict=False)
        )

    def save(self, folder: Path) -> None:
        """Write the words into a model folder."""
        write_json({"nouns": self.nouns, "names": self.names}, folder / WORDS_FILE)


def _phrase(caption: str) -> str:
    """A plain caption without article and colours."""
    words = [word for word in caption.lower().split() if word not in ("a", "an", "and", *COLOR_WORDS)]
    return " ".join(words)
