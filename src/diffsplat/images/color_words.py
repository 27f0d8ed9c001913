"""The eleven basic colour words (Berlin & Kay, "Basic Color Terms", 1969)."""

from typing import Literal, get_args

ColorWord = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"
]
COLOR_WORDS: tuple[ColorWord, ...] = get_args(ColorWord)
NEUTRAL_WORDS: tuple[ColorWord, ...] = ("black", "white", "grey")
