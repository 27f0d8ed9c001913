"""The ``.ksplat`` format (https://github.com/mkkellogg/GaussianSplats3D), read only.

A header of 4096 bytes, one of 1024 for every section, then the sections: Gaussians in float32 (level 0), or
with 16-bit positions around the centres of buckets and half floats (levels 1 and 2). What was captured with
cameras whose y axis points down appears upright in the viewers of this format, so -Y is up.
"""

import logging
import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, require
from diffsplat.io.gaussian_arrays import GaussianArrays, bytes_behind

logger = logging.getLogger(__name__)

_HEADER_SIZE, _SECTION_SIZE = 4096, 1024
_HEADER = struct.Struct("<BBxxIIIIH")
_SECTION = struct.Struct("<IIIIfHxxI4xIIH")
_SH_SIZES = (0, 9, 24, 45)
_SH_BYTES = (4, 2, 1)
_DEFAULT_RANGE = (1, 32767, 32767)


@dataclass(frozen=True)
class _Section:
    """One section's header and the offsets of its data."""

    count: int
    capacity: int
    bucket_count: int
    block_size: float
    bucket_bytes: int
    code_range: int
    full_buckets: int
    partial_buckets: int
    buckets_at: int
    splats_at: int
    row: np.dtype


def decode_ksplat(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.ksplat`` file.

    Raises:
        ValueError: when it is broken, of another version, or holds none.
    """
    require(len(data) >= _HEADER_SIZE, "the number of its bytes", len(data), f"at least {_HEADER_SIZE}")
    major, minor, section_count, _, _, count, level = _HEADER.unpack_from(data)
    require(not major and minor > 0, "its version", f"{major}.{minor}", "0.1 or later")
    require(level <= 2, "its compression level", level, "0, 1 or 2")
    sections, end = _sections(data, section_count, level)
    held = sum(section.count for section in sections)
    if not held or held != count:
        raise InvalidInputError(f"its header promises {count} Gaussians, but its sections hold {held}")
    gaussians = GaussianArrays.concatenate([_decode_section(data, section, level) for section in sections])
    return replace(gaussians, flaws=bytes_behind(len(data) - end))


def _sections(data: bytes, section_count: int, level: int) -> tuple[list[_Section], int]:
    """The sections that hold Gaussians, checked against the size of the file, and where the last one ends."""
    offset = _HEADER_SIZE + section_count * _SECTION_SIZE
    if offset > len(data):
        raise InvalidInputError(f"its header promises {section_count} sections, more than it can hold")
    sections: list[_Section] = []
    for index in range(section_count):
        fields = _SECTION.unpack_from(data, _HEADER_SIZE + index * _SECTION_SIZE)
        count, most, capacity, buckets, block, bucket_bytes, code_range, full, partial, degree = fields
        require(degree < len(_SH_SIZES), "the degree of its harmonics", degree, "0 to 3")
        if degree and count:
            logger.warning("spherical-harmonic coefficients beyond degree 0 are ignored")
        row = _row_type(level, _SH_SIZES[degree] * _SH_BYTES[level])
        splats_at = offset + partial * 4 + buckets * bucket_bytes
        end = splats_at + most * row.itemsize
        if count > most or end > len(data):
            raise InvalidInputError(f"its section {index} promises {most} Gaussians, more than it can hold")
        if count:
            if level and (full + partial > buckets or bucket_bytes < 12):
                raise InvalidInputError(f"its section {index} has buckets that do not fit its header")
            sections.append(
                _Section(
                    *(count, capacity, buckets, block, bucket_bytes, code_range or _DEFAULT_RANGE[level]),
                    *(full, partial, offset, splats_at, row),
                )
            )
        offset = end
    return sections, offset


def _row_type(level: int, harmonics: int) -> np.dtype:
    mean, real = ("<f4", "<f4") if level == 0 else ("<u2", "<f2")
    fields = [("mean", mean, 3), ("scale", real, 3), ("quat", real, 4), ("rgba", "u1", 4)]
    return np.dtype([*fields, ("harmonics", "u1", harmonics)])


def _decode_section(data: bytes, section: _Section, level: int) -> GaussianArrays:
    rows = np.frombuffer(data, section.row, section.count, section.splats_at)
    means = rows["mean"].astype(np.float32)
    if level:
        with np.errstate(over="ignore", invalid="ignore"):
            means -= np.float32(section.code_range)
            means *= np.float32(section.block_size) / np.float32(2 * section.code_range)
            means += _bucket_centers(data, section)[_bucket_of_each(data, section)]
    rgba = rows["rgba"].astype(np.float32) / np.float32(255)
    scales, quats = rows["scale"].astype(np.float32), rows["quat"].astype(np.float32)
    return GaussianArrays(means, scales, quats, opacities=rgba[:, 3], colors=rgba[:, :3])


def _bucket_centers(data: bytes, section: _Section) -> NDArray[np.float32]:
    """``[bucket_count, 3]``."""
    start = section.buckets_at + section.partial_buckets * 4
    shape, strides = (section.bucket_count, 3), (section.bucket_bytes, 4)
    return np.ndarray(shape, "<f4", data, start, strides)


def _bucket_of_each(data: bytes, section: _Section) -> NDArray[np.int64]:
    """``[count]``: first those of full buckets, then those of the partial ones, whose sizes are listed."""
    index = np.arange(section.count, dtype=np.int64)
    in_full = min(section.full_buckets * section.capacity, section.count)
    bucket = index // max(section.capacity, 1)
    sizes = np.frombuffer(data, "<u4", section.partial_buckets, section.buckets_at)
    ends = np.cumsum(sizes, dtype=np.int64)
    rest = index[in_full:] - in_full
    if len(rest) and (not len(ends) or rest[-1] >= ends[-1]):
        raise InvalidInputError("it has Gaussians outside of all buckets")
    bucket[in_full:] = section.full_buckets + np.searchsorted(ends, rest, side="right")
    return bucket
