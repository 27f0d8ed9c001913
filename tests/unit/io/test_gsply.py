"""Files written here, as the package gsply reads them, which was written without this one. Skipped without it.

``pip install "gsply[all]"``. It gives what is stored: logarithms, logits, coefficients, and the file's axes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsplat.core import Splats
from diffsplat.io.splat_formats import SPLAT_FORMATS, write_splats
from support.splat_sets import C0, PRECISIONS, Precision, assert_same, lattice_splats

gsply = pytest.importorskip("gsply")


def read_spz(path: str) -> Any:
    from gsply.spz import read_spz as read

    return read(path)


READERS: dict[str, Callable[[str], Any]] = {
    ".ply": gsply.plyread,
    ".compressed.ply": gsply.plyread,
    ".spz": read_spz,
    ".sog": gsply.sogread,
}


@pytest.mark.parametrize("suffix", READERS)
def test_files_written_here_are_read_there(tmp_path: Path, suffix: str):
    if suffix == ".sog":
        pytest.importorskip("imagecodecs")
    splats = lattice_splats(1500)
    path = tmp_path / f"a{suffix}"
    write_splats(splats, path)
    data = READERS[suffix](str(path))
    means, quats = np.array(data.means), np.array(data.quats)
    if SPLAT_FORMATS[suffix].up == "minus-y":
        means *= [1, -1, -1]
        w, x, y, z = quats.T
        quats = np.stack([x, -w, z, -y], axis=1)  # Half a turn about x, then the stored rotation.
    found = Splats(
        means=torch.tensor(means),
        scales=torch.tensor(np.array(data.scales)).exp(),
        quats=torch.tensor(quats / np.linalg.norm(quats, axis=1, keepdims=True)),
        opacities=torch.tensor(np.array(data.opacities)).reshape(-1).sigmoid(),
        colors=(torch.tensor(np.array(data.sh0)).reshape(-1, 3) * C0 + 0.5).clamp(0, 1).float(),
    )
    bound = PRECISIONS[suffix]
    slack = Precision(
        bound.mean + 1e-6, bound.log_sigma + 1e-5, bound.angle + 0.1, bound.opacity + 1e-4, bound.color + 1e-6
    )
    assert_same(found, splats, slack)
