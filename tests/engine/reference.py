"""What the engine should compute, written a second time in plain numpy, from the documentation alone."""

from functools import reduce

import numpy as np


def model(factors, modes):
    """The sum over components of outer products."""
    letters = "abcdefgh"[: len(modes)]
    terms = ",".join(f"{letter}r" for letter in letters)
    return np.einsum(f"{terms}->{letters}", *[np.asarray(factors[mode], float) for mode in modes])


def misfit(values, factors, modes, weight=1.0, entries=1.0):
    """Half the weighted sum of squared residuals."""
    return 0.5 * weight * float(np.sum(entries * np.square(values - model(factors, modes))))


def penalty(constraint, factor):
    """What a constraint of the given name adds to the objective."""
    factor = np.asarray(factor, float)
    if constraint.components is not None:
        factor = factor[:, [number - 1 for number in constraint.components]]
    kind = type(constraint).__name__
    if kind == "Sparse":
        return float(constraint.strength) * np.abs(factor).sum()
    if kind == "SoftOrthogonal":
        products = factor.T @ factor
        return float(constraint.strength) * (products.sum() - np.trace(products)) / 2
    assert kind in ("NonNegative", "Box", "Fixed", "SumToOne"), kind
    return 0.0


def gram(factors, axis):
    return reduce(np.multiply, [f.T @ f for m, f in enumerate(factors) if m != axis])


def lasso(gram_matrix, right, strength, nonnegative=False, rounds=3000):
    """Minimise 1/2 tr(A G A^T) - <M, A> + strength |A|_1 by coordinate descent, to the last digits."""
    answer = np.zeros_like(right)
    for _ in range(rounds):
        before = answer.copy()
        for r in range(right.shape[1]):
            pull = right[:, r] - answer @ gram_matrix[:, r] + gram_matrix[r, r] * answer[:, r]
            shrunk = np.maximum(np.abs(pull) - strength, 0) * np.sign(pull)
            answer[:, r] = (np.maximum(shrunk, 0) if nonnegative else shrunk) / gram_matrix[r, r]
        if np.abs(answer - before).max() <= 1e-16 * np.abs(answer).max():
            break
    return answer
