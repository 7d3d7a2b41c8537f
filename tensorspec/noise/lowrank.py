"""What a low-rank model leaves over, and how much noise it has swallowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["LowRank", "leading_singular_values", "low_rank", "noise_edge"]

FILL_SWEEPS = 5
LONG = 256


@dataclass(frozen=True)
class LowRank:
    """A truncated singular value decomposition in a scaled frame, given back in data units.

    Attributes
    ----------
    model : (rows, channels) array
        The model, data units.
    row_leverage : (rows,) array
        Share of the noise of each row that the model has swallowed: the squared norms of the rows of U.
    channel_leverage : (channels,) array
        The same for channels, from V.
    right : (channels, rank) array
        Right singular vectors in the scaled frame.
    values : (k,) array
        Leading singular values in the scaled frame, ``k > rank`` where there are more.
    power : float
        Sum of squares of the data in the scaled frame.
    """

    model: np.ndarray
    row_leverage: np.ndarray
    channel_leverage: np.ndarray
    right: np.ndarray
    values: np.ndarray
    power: float

    @property
    def rank(self) -> int:
        """Number of singular vectors in the model."""
        return self.right.shape[1]

    @property
    def kept(self) -> np.ndarray:
        """Share of the noise variance that remains in the residual, (rows, channels).

        To first order the residual is ``(1 - U U^T) E (1 - V V^T)``, whatever the noise ``E``.
        """
        return np.outer(1 - self.row_leverage, 1 - self.channel_leverage)


def low_rank(
    matrix: np.ndarray,
    rank: int | None,
    most: int,
    row_scale: np.ndarray | None = None,
    channel_scale: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    correlations: np.ndarray | None = None,
) -> LowRank:
    """Fit a low-rank model, with a given rank or with every component that stands above the noise.

    Parameters
    ----------
    matrix : (rows, channels) float64 array
        The data; missing entries hold any finite value.
    rank : int, optional
        Number of components; ``None`` chooses it, from 1 to `most`.
    most : int
        Number of singular values to look at.
    row_scale, channel_scale : arrays, optional
        The data are divided by their outer product before the decomposition. Positive.
    valid : (rows, channels) array of bool, optional
        Where False, the model's own value takes the place of the entry.
    correlations : (lags,) array, optional
        Correlation of the noise between channels at distance 1, 2, ...

    Returns
    -------
    LowRank
        The model and its leverages.
    """
    rows = np.ones(matrix.shape[0]) if row_scale is None else row_scale
    channels = np.ones(matrix.shape[1]) if channel_scale is None else channel_scale
    scaled = matrix / rows[:, None] / channels
    if valid is not None and valid.all():
        valid = None
    if valid is not None:
        scaled = np.where(valid, scaled, _row_by_channel_means(scaled, valid))
    for _ in range(1 if valid is None else FILL_SWEEPS):
        left, values, right, power = _decompose(scaled, rank, most, correlations)
        model = (left * values[: left.shape[1]]) @ right.T
        if valid is not None:
            scaled = np.where(valid, scaled, model)
    row_leverage, channel_leverage = (left**2).sum(axis=1), (right**2).sum(axis=1)
    if valid is not None:
        # What is known of a row determines its coefficients alone.
        row_leverage = np.minimum(row_leverage / np.maximum(valid.mean(axis=1), 1e-9), 1.0)
        channel_leverage = np.minimum(channel_leverage / np.maximum(valid.mean(axis=0), 1e-9), 1.0)
    return LowRank(
        model=model * rows[:, None] * channels,
        row_leverage=row_leverage,
        channel_leverage=channel_leverage,
        right=right,
        values=values,
        power=power,
    )


def noise_edge(rows: int, channels: int, correlations: np.ndarray | None = None) -> float:
    """Largest singular value of pure noise of unit variance: ``sqrt(rows) + sqrt(channels)`` when it is white.

    Noise that is correlated between channels is larger in some directions. The edge of its spectrum is the smallest
    value of ``1/c + channels/rows * mean(h / (1 - c h))``, h being the eigenvalues of the correlation matrix
    (J. W. Silverstein and S.-I. Choi, J. Multivariate Anal. 54 (1995) 295, doi:10.1006/jmva.1995.1058).

    Examples
    --------
    >>> round(noise_edge(400, 900), 6)
    50.0
    >>> round(noise_edge(400, 900, np.array([0.4])), 1)
    53.8
    """
    if correlations is None or not np.any(correlations):
        return float(np.sqrt(rows) + np.sqrt(channels))
    angle = np.pi * (np.arange(512) + 0.5) / 512
    lags = np.arange(1, len(correlations) + 1)
    eigenvalues = np.maximum(1 + 2 * np.cos(np.outer(angle, lags)) @ correlations, 0.0)
    eigenvalues /= eigenvalues.mean()
    c = np.linspace(0.002, 0.998, 500) / eigenvalues.max()
    edge = 1 / c + channels / rows * (eigenvalues / (1 - c[:, None] * eigenvalues)).mean(axis=1)
    return float(np.sqrt(rows * edge.min()))


def leading_singular_values(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return left vectors, the largest singular values, falling, and right vectors, by the Gram matrix.

    Examples
    --------
    >>> left, values, right = leading_singular_values(np.diag([1.0, 3.0, 2.0]), 2)
    >>> values.round(12).tolist(), left.shape, right.shape
    ([3.0, 2.0], (3, 2), (3, 2))
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    squares, vectors = _leading(gram, min(count, len(gram)))
    values, first = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1]
    other = (matrix.T @ first if wide else matrix @ first) / np.maximum(values, np.finfo(float).tiny)
    return (first, values, other) if wide else (other, values, first)


def _decompose(
    scaled: np.ndarray, rank: int | None, most: int, correlations: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Leading singular vectors from the Gram matrix of the short side."""
    rows, channels = scaled.shape
    wide = rows <= channels
    gram = scaled @ scaled.T if wide else scaled.T @ scaled
    size = len(gram)
    looked = min(size, max(most, rank or 1) + 1)
    squares, vectors = _leading(gram, looked)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    vectors = vectors[:, ::-1]
    power = float(np.trace(gram))
    if rank is None:
        rank = _rank_above_noise(values, power, scaled.shape, most, correlations)
    rank = min(rank, int(np.count_nonzero(values > 1e-8 * values[0])) or 1)
    first = vectors[:, :rank]
    other = (scaled.T @ first if wide else scaled @ first) / np.maximum(values[:rank], np.finfo(float).tiny)
    return (first, values, other, power) if wide else (other, values, first, power)


def _leading(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues of a Gram matrix, rising, and their vectors."""
    size = len(gram)
    if size >= LONG and count * 8 <= size:
        import scipy.sparse.linalg  # loads slowly: not before it is needed

        # The method of Lanczos takes a sixth of the time where few are asked for.
        begin = np.random.default_rng(0).standard_normal(size)
        try:
            squares, vectors = scipy.sparse.linalg.eigsh(gram, k=count, v0=begin)
            order = np.argsort(squares)
            return squares[order], vectors[:, order]
        except scipy.sparse.linalg.ArpackNoConvergence:
            pass
    import scipy.linalg

    return scipy.linalg.eigh(gram, subset_by_index=(size - count, size - 1), check_finite=False)


def _rank_above_noise(
    values: np.ndarray, power: float, shape: tuple[int, int], most: int, correlations: np.ndarray | None
) -> int:
    """Count the singular values above the edge of the noise that they leave over; start generous, then shrink."""
    rows, channels = shape
    edge = 1.02 * noise_edge(rows, channels, correlations)
    rank = min(most, len(values))
    for _ in range(most):
        left_over = max(power - float((values[:rank] ** 2).sum()), 0.0)
        sigma = np.sqrt(left_over / max((rows - rank) * (channels - rank), 1))
        above = max(1, min(most, int(np.count_nonzero(values > edge * sigma))))
        if above >= rank:
            break
        rank = above
    return rank


def _row_by_channel_means(scaled: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """First guess of missing entries: row mean times channel mean over the grand mean."""
    held = np.where(valid, scaled, 0.0)
    row = held.sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    channel = held.sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    grand = held.sum() / max(int(valid.sum()), 1)
    return np.outer(row, channel) / grand if grand else np.zeros_like(scaled)
