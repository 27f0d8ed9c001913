"""The lanes against NumPy, and what the compilation layer says."""

import logging
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest

from diffsplat.render.cpu_kernels import compilation_cache, simd


@numba.njit
def _evaluate(values: Any, results: Any) -> None:
    """Rows of results: 2^x, x * 3 + 1, smaller of x and -5, bits of x > -5, sums of three vectors."""
    for i in range(0, values.size, 16):
        x = simd.load_lanes(values, i)
        simd.store_lanes(results, i, simd.exp2(x))
        simd.store_lanes(results, values.size + i, simd.multiply_add(x, 3.0, 1.0))
        simd.store_lanes(results, 2 * values.size + i, simd.minimum(x, -5.0))
        results[3, i] = simd.mask_bits(x > -5.0)
        simd.store_lanes(results, 4 * values.size + i, simd.sum_each((x, x * x, 1.0 - x)))


def test_lanes_compute_what_numpy_does() -> None:
    values = np.linspace(-40, 0, 4096, dtype=np.float32)
    results = np.zeros((5, values.size), np.float32)
    _evaluate(values, results)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(results[0], np.exp2(exact), rtol=3e-7)
    np.testing.assert_allclose(results[1], exact * 3 + 1, rtol=1e-6)
    np.testing.assert_array_equal(results[2], np.minimum(values, -5))
    groups = exact.reshape(-1, 16)
    bits = ((groups > -5) * (1 << np.arange(16))).sum(axis=1)
    np.testing.assert_array_equal(results[3, ::16], bits)
    sums = results[4].reshape(-1, 16)
    np.testing.assert_allclose(sums[:, 0], groups.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(sums[:, 1], (groups**2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(sums[:, 2], (1 - groups).sum(axis=1), rtol=1e-6)
    assert not sums[:, 3:].any()


ANNOUNCED = """
import numba
from diffsplat.render.cpu_kernels import compilation_cache

def double(x):
    return x * 2

double.__module__ = "diffsplat.render.cpu_kernels.projection"
compiled = numba.njit(double)
with compilation_cache.announced_compilation():
    assert compiled(2) == 4
    assert compiled(2.5) == 5
    assert numba.njit(lambda x: x)(1) == 1
"""


def test_compilation_is_announced_once() -> None:
    done = subprocess.run([sys.executable, "-c", ANNOUNCED], capture_output=True, text=True, check=True)
    assert done.stderr.count("compiling the rasterizer") == 1


def test_compilation_of_other_functions_is_not_announced() -> None:
    elsewhere = ANNOUNCED.replace("diffsplat.render.cpu_kernels.projection", "elsewhere")
    done = subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_kernel_that_cannot_be_kept_still_works(caplog: pytest.LogCaptureFixture) -> None:
    namespace: dict[str, Any] = {}
    exec("def triple(x):\n    return x * 3\n", namespace)  # no source file, so there is no place for a cache
    with caplog.at_level(logging.WARNING):
        triple = compilation_cache.kernel(namespace["triple"])
    assert triple(3.0) == 9
    assert any("compiled again in every process" in r.getMessage() for r in caplog.records)
