"""The credits page of rendered shards: source, licence and creator of every object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError

_LICENSES = {
    "CC0-1.0": "[CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/), public domain",
    "CC-BY-3.0": "[CC BY 3.0](https://creativecommons.org/licenses/by/3.0/)",
    "CC-BY-3.0-US": "[CC BY 3.0 US](https://creativecommons.org/licenses/by/3.0/us/)",
}
_BASES = {
    "text": "The licence's text is beside these files, or beside the same pack elsewhere.",
    "stated": "The creator publishes such packs under this licence; no licence text is beside these files.",
}
_CHANGES = (
    "All objects were centred, scaled, rendered to images under our own light, and many were repainted in "
    "other colours. None of the creators endorses this project."
)


def credits_page(rows: Iterable[ObjectRow]) -> str:
    """A Markdown page that names source, licence and creator of every object, each object once.

    Raises:
        ValueError: there are no rows.
    """
    originals = [row for row in rows if not row.variant]
    if not originals:
        raise InvalidInputError("got no objects to credit, expected at least one row")
    lines = ["# Credits of the training objects", "", f"{len(originals)} objects. {_CHANGES}"]
    for source in sorted({row.source for row in originals}):
        of_source = [row for row in originals if row.source == source]
        for terms in sorted({(row.license, row.license_basis) for row in of_source}):
            members = [row for row in of_source if (row.license, row.license_basis) == terms]
            lines += ["", f"## {source}", "", f"Licence: {_LICENSES.get(terms[0], terms[0])}."]
            lines += [_BASES.get(terms[1], terms[1]), ""] if terms[1] else [""]
            for creator in sorted({row.creator for row in members}, key=str.lower):
                lines.append(f"- {creator}: {_listed([row for row in members if row.creator == creator])}")
    return "\n".join(lines) + "\n"


def licences_summary(rows: Iterable[ObjectRow]) -> str:
    """How many objects have which licence, as far as it is known: ``12 under CC0-1.0, 3 of unknown licence``."""
    counts = Counter(row.license for row in rows if not row.variant)
    return ", ".join(
        f"{count} of unknown licence" if name == "unknown" else f"{count} under {name}"
        for name, count in counts.most_common()
    )


def _listed(rows: list[ObjectRow]) -> str:
    """Files of some objects, below their source's folder."""
    return ", ".join(sorted(f"`{row.object_id.split('/', 1)[1]}`" for row in rows))
