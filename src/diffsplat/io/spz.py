"""The ``.spz`` format (https://github.com/nianticlabs/spz): 20 bytes per Gaussian, then compressed.

Positions are 24-bit fixed point, sigmas bytes ``16 (ln sigma + 10)``, opacities bytes, colours bytes of the
coefficient of degree 0 between -1/0.3 and 1/0.3, rotations the three smaller components in 10 bits each
(version 2: ``x y z`` in bytes). The axes are right, up, back, as in this package. Versions 2 and 3 are one
gzip stream; version 4 has a plain header and one Zstandard stream for every attribute.
"""

import gzip
import itertools
import logging
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays
from diffsplat.io.parsing_limits import gunzip, unpacked_limit
from diffsplat.io.splat_quantization import join_largest, split_largest, to_unorm

logger = logging.getLogger(__name__)

_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")
_HEADER_4 = struct.Struct("<IIIBBBBI12x")
_STREAM = struct.Struct("<QQ")
_HAS_EXTENSIONS = 2

_SH_SIZES = (0, 9, 24, 45, 72)
"""Coefficients beyond degree 0 of a Gaussian, by degree."""

_FRACTION_BITS = 16
_POSITION_LIMIT = 1 << 23
_COLOR_SCALE = 0.15
_WINDOW_LIMIT = 1 << 23


@dataclass(frozen=True)
class _Packed:
    """The attributes of one file, one after the other as they are stored."""

    fraction_bits: int
    smallest_three: bool
    positions: memoryview
    alphas: memoryview
    colors: memoryview
    scales: memoryview
    rotations: memoryview


def encode_spz(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.spz`` file of version 3.

    Raises:
        ValueError: when a position is farther than 8 388 607 from the origin.
    """
    reach = float(np.abs(gaussians.means).max())
    bits = _FRACTION_BITS
    while bits and round(reach * (1 << bits)) >= _POSITION_LIMIT:
        bits -= 1
    if round(reach * (1 << bits)) >= _POSITION_LIMIT:
        raise InvalidInputError(f"a position is {reach:g} from the origin, which a .spz file cannot hold")
    fixed = np.rint(gaussians.means * (1 << bits)).astype("<i4")
    harmonics = (gaussians.colors - 0.5) / SH_DEGREE_0
    parts = [
        _HEADER.pack(_MAGIC, 3, len(fixed), 0, bits, 0, 0),
        fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes(),
        to_unorm(gaussians.opacities, 8).astype(np.uint8).tobytes(),
        to_unorm(harmonics * _COLOR_SCALE + 0.5, 8).astype(np.uint8).tobytes(),
        np.clip(np.rint((np.log(gaussians.scales) + 10) * 16), 0, 255).astype(np.uint8).tobytes(),
        _pack_rotations(gaussians.quats).tobytes(),
    ]
    return gzip.compress(b"".join(parts), mtime=0)


def decode_spz(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.spz`` file of version 2, 3 or 4.

    Raises:
        ValueError: when it is broken, of another version, or unpacks to far more than its size.
        ImportError: when it is of version 4 and the package zstandard is missing.
    """
    if data[:4] == _MAGIC.to_bytes(4, "little"):
        packed = _unpack_4(data)
    elif data[:2] == b"\x1f\x8b":
        packed = _unpack_gzip(gunzip(data, unpacked_limit(len(data))))
    else:
        raise InvalidInputError("it does not start like a .spz file")
    return _decode(packed)


def _unpack_gzip(data: bytes) -> _Packed:
    if len(data) < _HEADER.size:
        raise InvalidInputError("its header is cut")
    magic, version, count, degree, bits, flags, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise InvalidInputError("it does not hold the mark of a .spz file")
    if version not in (2, 3):
        raise InvalidInputError(f"it has the version {version}, expected 2, 3 or 4")
    sizes = _attribute_sizes(count, degree, bits, smallest_three=version == 3)
    wanted, held = sum(sizes), len(data) - _HEADER.size
    if wanted > held or (wanted != held and not flags & _HAS_EXTENSIONS):
        raise InvalidInputError(
            f"its header promises {count} Gaussians in {wanted} bytes, but it holds {held} bytes"
        )
    ends = np.cumsum([_HEADER.size, *sizes]).tolist()
    view = memoryview(data)
    parts = (view[start:end] for start, end in itertools.islice(itertools.pairwise(ends), 5))
    return _Packed(bits, version == 3, *parts)


def _unpack_4(data: bytes) -> _Packed:
    if len(data) < _HEADER_4.size:
        raise InvalidInputError("its header is cut")
    _, version, count, degree, bits, flags, streams, start = _HEADER_4.unpack_from(data)
    if version != 4:
        raise InvalidInputError(f"it has the version {version}, expected 2, 3 or 4")
    if flags & _HAS_EXTENSIONS:
        logger.warning("extensions of the .spz file are ignored")
    sizes = _attribute_sizes(count, degree, bits, smallest_three=True)
    if sum(sizes) > unpacked_limit(len(data)):
        raise InvalidInputError(
            f"its header promises {count} Gaussians, more than {len(data)} bytes can hold"
        )
    expected = len(sizes) if sizes[-1] else len(sizes) - 1
    if streams not in (expected, len(sizes)):
        raise InvalidInputError(f"it has {streams} streams, expected {expected}")
    offset = start + streams * _STREAM.size
    if start < _HEADER_4.size or offset > len(data):
        raise InvalidInputError("its table of streams lies outside of the file")
    parts: list[memoryview] = []
    for index, size in enumerate(sizes[:5]):
        packed_size, unpacked_size = _STREAM.unpack_from(data, start + index * _STREAM.size)
        if unpacked_size != size or packed_size > len(data) - offset:
            raise InvalidInputError(f"its stream {index} has a size that does not fit {count} Gaussians")
        parts.append(memoryview(_unzstd(data[offset : offset + packed_size], size)))
        offset += packed_size
    return _Packed(bits, True, *parts)


def _attribute_sizes(count: int, degree: int, bits: int, *, smallest_three: bool) -> list[int]:
    """Bytes of positions, opacities, colours, sizes, rotations and harmonics."""
    if not count:
        raise InvalidInputError("it has no Gaussians")
    if degree >= len(_SH_SIZES):
        raise InvalidInputError(f"it has harmonics of degree {degree}, expected 0 to 4")
    if bits > 23:
        raise InvalidInputError(f"its positions have {bits} fractional bits, expected 0 to 23")
    if degree:
        logger.warning("spherical-harmonic coefficients beyond degree 0 are ignored")
    widths = (9, 1, 3, 3, 4 if smallest_three else 3, _SH_SIZES[degree])
    return [count * width for width in widths]


def _unzstd(data: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of a Zstandard stream."""
    import zstandard

    window = max(_WINDOW_LIMIT, 1 << size.bit_length())
    try:
        with zstandard.ZstdDecompressor(max_window_size=window).stream_reader(data) as reader:
            unpacked = reader.read(size + 1)
    except zstandard.ZstdError as error:
        raise InvalidInputError(f"one of its streams is broken ({error})") from error
    if len(unpacked) != size:
        raise InvalidInputError(f"one of its streams unpacks to {len(unpacked)} bytes, expected {size}")
    return unpacked


def _decode(packed: _Packed) -> GaussianArrays:
    # First, because this takes the most memory on the way.
    quats = _unpack_rotations(packed)
    alphas = np.frombuffer(packed.alphas, np.uint8)
    count = len(alphas)
    fixed = np.zeros((3 * count, 4), np.uint8)
    fixed[:, 1:] = np.frombuffer(packed.positions, np.uint8).reshape(-1, 3)
    # The three bytes stand at the top of 32 bits, so that the sign is where it belongs.
    means = fixed.view("<i4").reshape(count, 3).astype(np.float32)
    means *= np.float32(2.0 ** -(8 + packed.fraction_bits))
    colors = np.frombuffer(packed.colors, np.uint8).reshape(count, 3).astype(np.float32) / 255
    scales = np.frombuffer(packed.scales, np.uint8).reshape(count, 3).astype(np.float32)
    return GaussianArrays(
        means=means,
        scales=np.exp(scales / 16 - 10),
        quats=quats,
        opacities=alphas.astype(np.float32) / 255,
        colors=(colors - 0.5) * np.float32(SH_DEGREE_0 / _COLOR_SCALE) + np.float32(0.5),
    )


def _pack_rotations(quats: NDArray[np.floating]) -> NDArray[np.uint32]:
    """``[N]`` words: the index of the largest of ``x y z w`` in the top bits, then sign and size of the others."""
    largest, others = split_largest(np.roll(quats, -1, axis=1))
    words = largest.astype("<u4")
    sizes = np.rint(np.minimum(np.abs(others) / 0.5**0.5, 1) * 511).astype("<u4")
    for column in range(3):
        words = (words << 10) | ((others[:, column] < 0).astype("<u4") << 9) | sizes[:, column]
    return words


def _unpack_rotations(packed: _Packed) -> NDArray[np.float32]:
    if packed.smallest_three:
        words = np.frombuffer(packed.rotations, "<u4")
        fields = np.stack([words >> 20, words >> 10, words], axis=1)
        others = (fields & 511).astype(np.float32) * np.float32(0.5**0.5 / 511)
        others = np.where(fields & 512, -others, others)
        return np.roll(join_largest(words >> 30, others), 1, axis=1).astype(np.float32, copy=False)
    vectors = np.frombuffer(packed.rotations, np.uint8).reshape(-1, 3).astype(np.float32) / 127.5 - 1
    return join_largest(np.zeros(len(vectors), np.intp), vectors).astype(np.float32, copy=False)
