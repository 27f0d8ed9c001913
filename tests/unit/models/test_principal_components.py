"""Principal components, against numpy's singular values."""

import numpy as np
import pytest
import torch

from diffsplat.models.principal_components import PrincipalComponents


def test_components_are_the_right_singular_vectors_of_the_centred_data():
    data = np.random.default_rng(0).normal(size=(500, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1]) + 4.0
    found = PrincipalComponents.fit(torch.from_numpy(part).float() for part in np.array_split(data, 7))
    _, singular, vectors = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(found.center, data.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.deviations, singular / np.sqrt(500), rtol=1e-3)
    np.testing.assert_allclose(np.abs(np.sum(found.vectors.numpy() * vectors, axis=1)), 1, atol=1e-4)


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="got no vectors"):
        PrincipalComponents.fit([])
