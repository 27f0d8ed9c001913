"""The ``.splat`` format: 32 bytes per Gaussian and no header.

Position and sigmas as float32, colour and opacity as bytes, then the quaternion ``w x y z`` as bytes
``128 + 128 q``. The layout is that of the viewer https://github.com/antimatter15/splat; what was captured
with cameras whose y axis points down appears upright there, so -Y is up.
"""

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import GaussianArrays, bytes_behind
from diffsplat.io.splat_quantization import to_unorm

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])

_TEXT_START = 128
"""Bytes by which a text is told from Gaussians."""


def encode_splat(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.splat`` file.

    Raises:
        ValueError: for values beyond float32.
    """
    rows = np.zeros(len(gaussians.means), dtype=_ROW)
    with np.errstate(over="ignore", under="ignore"):
        rows["mean"], rows["scale"] = gaussians.means, gaussians.scales
    if not (np.isfinite(rows["mean"]).all() and np.isfinite(rows["scale"]).all()):
        raise InvalidInputError("the splats have values beyond float32, which a .splat file cannot hold")
    rows["rgba"][:, :3] = to_unorm(gaussians.colors, 8)
    rows["rgba"][:, 3] = to_unorm(gaussians.opacities, 8)
    rows["quat"] = np.clip(np.rint(gaussians.quats * 128 + 128), 0, 255)
    return rows.tobytes()


def decode_splat(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.splat`` file.

    Raises:
        ValueError: when it has fewer than 32 bytes.
    """
    count, behind = divmod(len(data), _ROW.itemsize)
    if not count:
        raise InvalidInputError(f"it has {len(data)} bytes, expected a multiple of {_ROW.itemsize}")
    if data[:_TEXT_START].isascii() and "".join(data[:_TEXT_START].decode().split()).isprintable():
        raise InvalidInputError("it is text, perhaps an error page or a Git LFS pointer")
    rows = np.frombuffer(data, dtype=_ROW, count=count)
    rgba: NDArray[np.float32] = rows["rgba"].astype(np.float32) / np.float32(255)
    return GaussianArrays(
        means=rows["mean"],
        scales=rows["scale"],
        quats=(rows["quat"].astype(np.float32) - 128) / 128,
        opacities=rgba[:, 3],
        colors=rgba[:, :3],
        flaws=bytes_behind(behind),
    )
