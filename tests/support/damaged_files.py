"""Small files of every format, and damaged copies of them."""

import gzip
import random
from pathlib import Path

from diffsplat.io.splat_formats import write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from support.splat_sets import lattice_splats
from support.stored_files import (
    gltf_with_nodes,
    ksplat,
    sog_version_1,
    spz_version_1,
    spz_version_2,
    spz_version_4,
)

_TELLING = (0, 1, 2, 127, 128, 254, 255)


def good_files(folder: Path) -> dict[str, list[bytes]]:
    """By suffix, whole files: of the writers, and built by hand for what only readers know."""
    splats = lattice_splats(40)
    files: dict[str, list[bytes]] = {}
    for suffix in WRITABLE_SUFFIXES:
        write_splats(splats, folder / f"a{suffix}")
        files[suffix] = [(folder / f"a{suffix}").read_bytes()]
    files[".ksplat"] = [ksplat(level=level) for level in (0, 1, 2)]
    files[".spz"] += [spz_version_1(), spz_version_2(), spz_version_4(), gzip.decompress(spz_version_2())]
    files[".sog"] += [sog_version_1()]
    files[".gltf"] += [gltf_with_nodes()]
    return files


def damaged(data: bytes, source: random.Random) -> bytes:
    """A copy with something wrong: bytes, bits, words, cuts, repeats, or what a header promises."""
    copy = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 5))):
        # Half of all damage hits the head, where the promises stand.
        place = source.randrange(min(len(copy), source.choice((64, 400, len(copy)))) or 1)
        match source.randrange(7):
            case 0 if copy:
                copy[place] = source.choice(_TELLING)
            case 1 if copy:
                copy[place] ^= 1 << source.randrange(8)
            case 2:
                copy[place : place + 4] = source.choice((2**32 - 1, 2**31, 2**16, 10**6, 0)).to_bytes(
                    4, "little"
                )
            case 3:
                del copy[place : place + source.choice((1, 4, 100, len(copy)))]
            case 4:
                copy[place:place] = source.randbytes(source.choice((1, 4, 64)))
            case 5:
                other = source.randrange(len(copy) or 1)
                copy[place:place] = copy[other : other + source.choice((4, 64, 1000))]
            case _:
                digits = [index for index, byte in enumerate(copy) if 48 <= byte <= 57]
                if digits:
                    copy[source.choice(digits)] = source.choice(b"0123456789-e.")
    return bytes(copy)
