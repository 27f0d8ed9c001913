"""The Oklab colour space (Ottosson, "A perceptual color space for image processing", 2020)."""

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb, srgb_to_linear

FloatArray = NDArray[np.floating]

_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LMS_TO_LINEAR = np.linalg.inv(_LINEAR_TO_LMS)
_LAB_TO_LMS = np.linalg.inv(_LMS_TO_LAB)


def srgb_to_oklab(rgb: FloatArray) -> FloatArray:
    """sRGB 0..1 ``[..., 3]`` to Oklab."""
    rgb = np.clip(np.asarray(rgb, dtype=np.float64), 0.0, 1.0)
    return np.cbrt(srgb_to_linear(rgb) @ _LINEAR_TO_LMS.T) @ _LMS_TO_LAB.T


def oklab_to_srgb(lab: FloatArray) -> FloatArray:
    """Oklab ``[..., 3]`` to sRGB 0..1, clipped to the gamut."""
    linear = np.clip((np.asarray(lab, dtype=np.float64) @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_LINEAR.T, 0.0, 1.0)
    return linear_to_srgb(linear)
