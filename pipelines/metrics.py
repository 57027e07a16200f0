"""Distances between two sets of feature vectors, each (n, dim), one row an image.

Both are deterministic functions of the two sets. They agree with clean-fid's where that is well posed (tests), and
were written out because clean-fid's Frechet distance takes the square root of a product of covariances, singular as
soon as there are fewer images than features and then off or negative, and its kernel distance draws from the global
random state.
"""

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024  # of a block of the kernel matrix


def frechet_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """|mean difference|^2 + Tr(Sa + Sb - 2 (Sa Sb)^(1/2)) (Heusel et al. 2017, eq. 6); FID on Inception features.

    With centred rows A, Sa = A'A, the last trace is the sum of the singular values of A B', so no square root of a
    matrix is taken. Biased upward by about dim/n: compare only values of equal n. Needs two rows of each.
    """
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2 * overlap
    return max(0.0, float(distance))  # equal sets come out at rounding error, of either sign


def _moments(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (dim,) and R (min(n, dim), dim) with R'R the unbiased covariance."""
    mean = features.mean(axis=0, dtype=np.float64)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    return mean, np.linalg.qr(centred, mode="r")


def kernel_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Unbiased squared MMD with the kernel (x'y/dim + 1)^3 (Binkowski et al. 2018); KID on Inception features.

    Over all pairs: the value that the usual average over random subsets of 1,000 estimates. Not biased by n, so it can
    be slightly negative for equal distributions. Takes n^2 kernel values. Needs two rows of each.
    """
    na, nb = len(a), len(b)
    within_a = _kernel_sum(a, a) - float(_kernel(np.einsum("nd,nd->n", a, a, dtype=np.float64), a.shape[1]).sum())
    within_b = _kernel_sum(b, b) - float(_kernel(np.einsum("nd,nd->n", b, b, dtype=np.float64), b.shape[1]).sum())
    return within_a / (na * (na - 1)) + within_b / (nb * (nb - 1)) - 2 * _kernel_sum(a, b) / (na * nb)


def _kernel(products: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    base = products / dim + 1
    return base * base * base  # a power by pow() takes many times longer


def _kernel_sum(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Sum of the kernel over all pairs, in blocks, so that memory does not grow with n^2."""
    columns = b.astype(np.float64).T
    blocks = (a[start : start + _ROWS].astype(np.float64) for start in range(0, len(a), _ROWS))
    return sum(float(_kernel(block @ columns, a.shape[1]).sum()) for block in blocks)
