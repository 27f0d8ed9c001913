"""Captions of a file in place of those that are made from the names of meshes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from diffsplat.data.caption_files import CaptionedObject
from diffsplat.data.mesh_sources import SourceListing, SourceObject
from diffsplat.data.object_labels import Label, named_colors, noun_of
from diffsplat.errors import InvalidInputError


def captioned(listing: SourceListing, captions: Mapping[str, CaptionedObject]) -> SourceListing:
    """The objects, with those that ``captions`` names captioned by it and the others as they are.

    Args:
        listing: the objects.
        captions: by the path of a file below the folder of meshes, with or without its suffix.

    Raises:
        ValueError: a name is that of no object.
    """
    places = {item.object_id.split("/", 1)[1]: item for item in listing.objects}
    known = {*places, *(str(PurePosixPath(place).with_suffix("")) for place in places)}
    if strangers := [name for name in captions if name not in known]:
        raise InvalidInputError(
            f"the captions name {strangers[0]!r}, expected a mesh file such as {next(iter(places))!r}"
        )
    return replace(
        listing, objects=tuple(_captioned(place, item, captions) for place, item in places.items())
    )


def _captioned(place: str, item: SourceObject, captions: Mapping[str, CaptionedObject]) -> SourceObject:
    found = captions.get(place) or captions.get(str(PurePosixPath(place).with_suffix("")))
    return item if found is None else replace(item, label=label_of_captions(found))


def label_of_captions(found: CaptionedObject) -> Label:
    """The label of an object with given captions; its repainted versions are called by the noun."""
    words = re.findall(r"[\w'-]+", found.captions[0].lower())
    colors = named_colors(words)
    named = [word for word in words if word not in ("a", "an", "the", *colors)]
    before = re.split(r" (?:of|in|on|made) ", " ".join(named))[0]
    noun = found.noun or (noun_of(before) if named else words[-1])
    return Label(noun, noun, colors=colors, captions=found.captions)
