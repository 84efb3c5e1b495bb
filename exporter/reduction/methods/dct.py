"""DCT: patches along the raster become the same signal at a lower rate; a control, which reads nothing of the image.

The patches are transformed along the token axis, the higher frequencies are left out, and fewer patches come back: one
constant matrix. There is no decision, and so none to compare. Without another choice, values grow by the square root of
N / K each time.

Source: He et al., Fourier Transformer: Fast Long Range Modeling by Removing Sequence Redundancy with FFT Operator,
Findings of ACL 2023, section 3.2, after each block as in the comparison of Tran et al., NeurIPS 2024.

Shapes: N patches, K that stay, C channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exporter.reduction.method import Method, Site, nothing
from exporter.schedule import all_patches_but_one


def combine(tokens_BNC: Tensor, sizes_BN1: Tensor, *, at: Site, normalize: bool) -> tuple[Tensor, Tensor]:
    """The first K coefficients of the orthonormal DCT-II of the patches, transformed back at length K.

    Args:
        tokens_BNC: prefix tokens pass.
        sizes_BN1: every token that comes out counts once.
        at: 0 < r < N.
        normalize: whether the mean of the patches stays what it is, which is times sqrt(K / N).
    """
    patches_BNC = tokens_BNC[:, at.prefix :]
    matrix_KN = torch.from_numpy(resampling(patches_BNC.shape[1], at.r, normalize)).to(tokens_BNC)
    tokens_BKC = torch.cat((tokens_BNC[:, : at.prefix], matrix_KN @ patches_BNC), dim=1)
    return tokens_BKC, sizes_BN1[:, : tokens_BKC.shape[1]]


def resampling(patches: int, r: int, normalize: bool) -> npt.NDArray[np.float32]:
    """The matrix of the transform, fp32 (N - r, N)."""
    count = patches - r
    matrix_KN = _cosines(count, count).T @ _cosines(patches, count)
    scale = np.sqrt(count / patches) if normalize else 1.0
    return np.asarray(scale * matrix_KN, dtype=np.float32)


def _cosines(length: int, rows: int) -> npt.NDArray[np.float64]:
    """The first rows of the orthonormal DCT-II, (rows, length)."""
    frequency, place = np.arange(rows)[:, None], np.arange(length)[None]
    rows_KN = np.cos(np.pi * (2 * place + 1) * frequency / (2 * length)) * np.sqrt(2 / length)
    rows_KN[0] /= np.sqrt(2)
    return np.asarray(rows_KN, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of DCT.

    Attributes:
        normalize: whether the mean of the patches stays what it is; in the source it grows by sqrt(N / K) each time.
    """

    normalize: bool = False


METHOD = Method(
    name="dct",
    reference="He et al., Fourier Transformer: Fast Long Range Modeling by Removing Sequence Redundancy with FFT "
    "Operator, Findings of ACL 2023",
    does="resamples the patches along the raster without their higher frequencies; the same matrix for every image",
    licence="none published",
    training="with the model, by the authors; off the shelf it is a control",
    decide=nothing,
    regret=nothing,
    reads=(),
    combine=combine,
    cap=all_patches_but_one,
    place="block-end",
    proportional=False,
    options=Options,
)
