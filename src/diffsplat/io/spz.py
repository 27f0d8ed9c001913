"""The ``.spz`` format (https://github.com/nianticlabs/spz): 20 bytes per Gaussian, then compressed.

Positions are 24-bit fixed point, sigmas bytes ``16 (ln sigma + 10)``, opacities bytes, colours bytes of the
coefficient of degree 0 between -1/0.3 and 1/0.3, rotations the three smaller components in 10 bits each
(versions 1 and 2: ``x y z`` in bytes). Positions of version 1 are half floats. The axes are right, up, back, as
in this package. Versions 1 to 3 are one gzip stream, or left unpacked; version 4 has a plain header and one
Zstandard stream for every attribute.
"""

import gzip
import itertools
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, require
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays, bytes_behind
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
_PRECISE_BITS = 12
"""Fractional bits from which positions are precise enough for any object; the format's own library writes them."""
_NEAR_SHARE = 0.95
"""Share of the Gaussians for which the fixed point is chosen where the rest is far away."""
_POSITION_LIMIT = 1 << 23
_COLOR_SCALE = 0.15
_WINDOW_LIMIT = 1 << 23
_PIECE = 1 << 20


@dataclass(frozen=True)
class _Packed:
    """The attributes of one file, one after the other as they are stored."""

    version: int
    fraction_bits: int
    positions: memoryview
    alphas: memoryview
    colors: memoryview
    scales: memoryview
    rotations: memoryview
    flaws: tuple[str, ...] = field(default=(), kw_only=True)


def encode_spz(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.spz`` file of version 3.

    The fixed point of the positions is chosen by where most Gaussians are. A few that are so far away that
    they would cost the others precision are drawn nearer to the origin, and as much smaller, so that they look
    the same from there; this is logged.

    Raises:
        ValueError: when most positions are farther than 8 388 607 from the origin.
    """
    reaches = np.abs(gaussians.means).max(axis=1)
    bits = _fraction_bits(reaches)
    gaussians = _within(gaussians, reaches, (_POSITION_LIMIT - 1) / (1 << bits))
    if bits < _PRECISE_BITS - 1:
        logger.warning("positions in the .spz file are rounded to %g, since they reach far", 2.0**-bits)
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
    """The Gaussians of a ``.spz`` file of version 1 to 4.

    Raises:
        ValueError: when it is broken, of another version, or unpacks to far more than its size.
        ImportError: when it is of version 4 and the package zstandard is missing.
    """
    if data[:4] == _MAGIC.to_bytes(4, "little"):
        old = 0 < int.from_bytes(data[4:8], "little") < 4
        packed = _unpack_plain(data) if old else _unpack_4(data)
    elif data[:2] == b"\x1f\x8b":
        packed = _unpack_gzip(data)
    else:
        raise InvalidInputError("it does not start like a .spz file")
    return _decode(packed)


def _fraction_bits(reaches: NDArray[np.floating]) -> int:
    """Fractional bits of positions whose greatest coordinates are ``reaches [N]``.

    Raises:
        ValueError: when not even whole numbers reach most of them.
    """
    for_all = _bits_up_to(float(reaches.max()))
    if for_all >= _PRECISE_BITS:
        return for_all
    near = float(np.quantile(reaches, _NEAR_SHARE, method="higher"))
    for_most = min(_bits_up_to(near), _PRECISE_BITS)
    if for_most < 0:
        raise InvalidInputError(f"positions are {near:g} from the origin, which a .spz file cannot hold")
    return for_all if 0 <= for_all >= for_most - 1 else for_most


def _within(gaussians: GaussianArrays, reaches: NDArray[np.floating], most: float) -> GaussianArrays:
    """Gaussians none of whose coordinates, at most ``reaches [N]``, is beyond ``most``."""
    far = int((reaches > most).sum())
    if not far:
        return gaussians
    logger.warning(
        "%d of %d Gaussians are farther than %g from the origin and are drawn nearer in the .spz file",
        *(far, len(reaches), most),
    )
    shrunk = (most / np.maximum(reaches, most))[:, None]
    return replace(gaussians, means=gaussians.means * shrunk, scales=gaussians.scales * shrunk)


def _bits_up_to(reach: float) -> int:
    """Most fractional bits with which fixed point reaches so far; negative when none do."""
    bits = _FRACTION_BITS
    while bits >= 0 and reach * (1 << bits) >= _POSITION_LIMIT - 0.5:
        bits -= 1
    return bits


def _unpack_gzip(data: bytes) -> _Packed:
    header, _ = gunzip(data, _HEADER.size)
    wanted = _HEADER.size + sum(_plain_sizes(header))
    if wanted > unpacked_limit(len(data)):
        raise InvalidInputError(f"its header promises {wanted} bytes, more than {len(data)} may unpack to")
    # A little more than is wanted, to see whether anything follows.
    inflated, behind = gunzip(data, wanted + _PIECE)
    packed = _unpack_plain(inflated)
    return replace(packed, flaws=packed.flaws + bytes_behind(behind))


def _plain_sizes(data: bytes) -> list[int]:
    """Bytes of the attributes that the header of a file of version 1 to 3 promises."""
    if len(data) < _HEADER.size:
        raise InvalidInputError("its header is cut")
    magic, version, count, degree, bits, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise InvalidInputError("it does not hold the mark of a .spz file")
    require(version in (1, 2, 3), "its version", version, "1 to 4")
    return _attribute_sizes(version, count, degree, bits)


def _unpack_plain(data: bytes) -> _Packed:
    sizes = _plain_sizes(data)
    _, version, count, degree, bits, flags, _ = _HEADER.unpack_from(data)
    _warn_of_harmonics(degree)
    wanted, held = sum(sizes), len(data) - _HEADER.size
    if wanted > held:
        raise InvalidInputError(
            f"its header promises {count} Gaussians in {wanted} bytes, it has {held} bytes"
        )
    ends = np.cumsum([_HEADER.size, *sizes]).tolist()
    view = memoryview(data)
    parts = (view[start:end] for start, end in itertools.islice(itertools.pairwise(ends), 5))
    behind = 0 if flags & _HAS_EXTENSIONS else held - wanted
    return _Packed(version, bits, *parts, flaws=bytes_behind(behind))


def _unpack_4(data: bytes) -> _Packed:
    if len(data) < _HEADER_4.size:
        raise InvalidInputError("its header is cut")
    _, version, count, degree, bits, flags, streams, start = _HEADER_4.unpack_from(data)
    require(version == 4, "its version", version, "1 to 4")
    if flags & _HAS_EXTENSIONS:
        logger.warning("extensions of the .spz file are ignored")
    sizes = _attribute_sizes(version, count, degree, bits)
    _warn_of_harmonics(degree)
    if sum(sizes) > unpacked_limit(len(data)):
        raise InvalidInputError(f"its header promises {count} Gaussians, more than {len(data)} bytes hold")
    expected = len(sizes) if sizes[-1] else len(sizes) - 1
    require(streams in (expected, len(sizes)), "the number of its streams", streams, str(expected))
    offset = start + streams * _STREAM.size
    if start < _HEADER_4.size or offset > len(data):
        raise InvalidInputError("its table of streams is outside the file")
    parts: list[memoryview] = []
    for index, size in enumerate(sizes[:5]):
        packed_size, unpacked_size = _STREAM.unpack_from(data, start + index * _STREAM.size)
        if unpacked_size != size or packed_size > len(data) - offset:
            raise InvalidInputError(f"its stream {index} has a size that does not fit {count} Gaussians")
        parts.append(memoryview(_unzstd(data[offset : offset + packed_size], size)))
        offset += packed_size
    unread = sum(_STREAM.unpack_from(data, start + index * _STREAM.size)[0] for index in range(5, streams))
    behind = 0 if flags & _HAS_EXTENSIONS else max(len(data) - offset - unread, 0)
    return _Packed(version, bits, *parts, flaws=bytes_behind(behind))


def _attribute_sizes(version: int, count: int, degree: int, bits: int) -> list[int]:
    """Bytes of positions, opacities, colours, sizes, rotations and harmonics."""
    if not count:
        raise InvalidInputError("it has no Gaussians")
    require(degree < len(_SH_SIZES), "the degree of its harmonics", degree, "0 to 4")
    require(bits <= 23, "the number of fractional bits of its positions", bits, "0 to 23")
    widths = (6 if version == 1 else 9, 1, 3, 3, 4 if version > 2 else 3, _SH_SIZES[degree])
    return [count * width for width in widths]


def _warn_of_harmonics(degree: int) -> None:
    if degree:
        logger.warning("spherical-harmonic coefficients beyond degree 0 are ignored")


def _unzstd(data: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of a Zstandard stream."""
    import zstandard

    window = max(_WINDOW_LIMIT, 1 << size.bit_length())
    try:
        with zstandard.ZstdDecompressor(max_window_size=window).stream_reader(data) as reader:
            # In pieces, because each read allocates what it asks for, however little there is.
            pieces = iter(lambda: reader.read(_PIECE), b"")
            unpacked = b"".join(_up_to(size, pieces))
    except zstandard.ZstdError as error:
        raise InvalidInputError(f"one of its streams is broken ({error})") from error
    if len(unpacked) != size:
        raise InvalidInputError(f"one of its streams unpacks to {len(unpacked)} bytes, expected {size}")
    return unpacked


def _up_to(size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces until there are more than ``size`` bytes."""
    held = 0
    for piece in pieces:
        held += len(piece)
        yield piece
        if held > size:
            return


def _decode(packed: _Packed) -> GaussianArrays:
    # First, because this takes the most memory on the way.
    quats = _unpack_rotations(packed)
    alphas = np.frombuffer(packed.alphas, np.uint8)
    count = len(alphas)
    means = _unpack_positions(packed, count)
    colors = np.frombuffer(packed.colors, np.uint8).reshape(count, 3).astype(np.float32) / 255
    scales = np.frombuffer(packed.scales, np.uint8).reshape(count, 3).astype(np.float32)
    return GaussianArrays(
        means=means,
        scales=np.exp(scales / 16 - 10),
        quats=quats,
        opacities=alphas.astype(np.float32) / 255,
        colors=(colors - 0.5) * np.float32(SH_DEGREE_0 / _COLOR_SCALE) + np.float32(0.5),
        flaws=packed.flaws,
    )


def _unpack_positions(packed: _Packed, count: int) -> NDArray[np.float32]:
    """``[count, 3]``."""
    if packed.version == 1:
        return np.frombuffer(packed.positions, "<f2").reshape(count, 3).astype(np.float32)
    fixed = np.zeros((3 * count, 4), np.uint8)
    fixed[:, 1:] = np.frombuffer(packed.positions, np.uint8).reshape(-1, 3)
    # The three bytes are the top of 32 bits, so that the sign is where it belongs.
    means = fixed.view("<i4").reshape(count, 3).astype(np.float32)
    means *= np.float32(2.0 ** -(8 + packed.fraction_bits))
    return means


def _pack_rotations(quats: NDArray[np.floating]) -> NDArray[np.uint32]:
    """``[N]`` words: the index of the largest of ``x y z w`` in the top bits, then sign and size of the others."""
    largest, others = split_largest(np.roll(quats, -1, axis=1))
    words = largest.astype("<u4")
    sizes = np.rint(np.minimum(np.abs(others) / 0.5**0.5, 1) * 511).astype("<u4")
    for column in range(3):
        words = (words << 10) | ((others[:, column] < 0).astype("<u4") << 9) | sizes[:, column]
    return words


def _unpack_rotations(packed: _Packed) -> NDArray[np.float32]:
    if packed.version > 2:
        words = np.frombuffer(packed.rotations, "<u4")
        fields = np.stack([words >> 20, words >> 10, words], axis=1)
        others = (fields & 511).astype(np.float32) * np.float32(0.5**0.5 / 511)
        others = np.where(fields & 512, -others, others)
        return np.roll(join_largest(words >> 30, others), 1, axis=1).astype(np.float32, copy=False)
    vectors = np.frombuffer(packed.rotations, np.uint8).reshape(-1, 3).astype(np.float32) / 127.5 - 1
    return join_largest(np.zeros(len(vectors), np.intp), vectors).astype(np.float32, copy=False)
