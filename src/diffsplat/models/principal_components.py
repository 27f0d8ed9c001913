"""Principal components of vectors, such as patches of images or of splat grids."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError


@dataclass(frozen=True)
class PrincipalComponents:
    """A linear code of vectors of length ``D``.

    Args:
        center: ``[D]`` mean.
        vectors: ``[D, D]`` orthonormal rows, the principal direction first.
        deviations: ``[D]`` standard deviation along each, above 0.
    """

    center: Tensor
    vectors: Tensor
    deviations: Tensor

    @classmethod
    @torch.no_grad()
    def fit(cls, batches: Iterable[Tensor]) -> "PrincipalComponents":
        """The components of the vectors of batches ``[N, D]``, in double precision; there has to be one.

        Raises:
            ValueError: there is none.
        """
        count, total, moment = 0, torch.zeros(()), torch.zeros(())
        for vectors in batches:
            count += vectors.shape[0]
            total = total.to(vectors.device) + vectors.double().sum(dim=0)
            moment = moment.to(vectors.device) + vectors.mT @ vectors
        if not count:
            raise InvalidInputError("got no vectors to find principal components of, expected some")
        center = total / count
        values, directions = torch.linalg.eigh(moment.double() / count - torch.outer(center, center))
        deviations = values.flip(0).clamp_min(1e-12).sqrt()
        return cls(center, directions.flip(1).mT, deviations)
