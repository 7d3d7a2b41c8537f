"""What every loss has to keep."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.losses import AbstractLoss
from tensorspec.recipe import from_recipe, to_recipe

__all__ = ["LossContract"]


class LossContract:
    """Tests of one loss; a subclass says how it is made.

    Attributes
    ----------
    shape : tuple of int
        Shape of the data that are tried: counts above zero.
    """

    shape: tuple[int, ...] = (6, 5)

    def make(self) -> AbstractLoss:
        """Return the loss to test."""
        raise NotImplementedError("say how the loss is made: def make(self): return Mine(...)")

    def data(self) -> np.ndarray:
        """Return data that the loss takes."""
        return np.random.default_rng(0).poisson(5.0, self.shape) + 1.0

    def test_comes_back_from_json(self) -> None:
        """The settings survive JSON."""
        made = self.make()
        assert to_recipe(from_recipe(json.loads(json.dumps(to_recipe(made))))) == to_recipe(made)

    def test_a_perfect_model_costs_least(self) -> None:
        """The data themselves are the cheapest model of the data."""
        with jax.enable_x64(True):
            loss, data = self.make(), self.data()
            best = float(loss.value(jnp.asarray(data), jnp.asarray(data)))
            rng = np.random.default_rng(1)
            for size in (1e-3, 0.1, 1.0):
                other = np.maximum(data + size * rng.standard_normal(self.shape), 1e-3)
                assert float(loss.value(jnp.asarray(data), jnp.asarray(other))) > best

    def test_weights_multiply(self) -> None:
        """An entry of weight zero costs nothing; weight two costs twice."""
        with jax.enable_x64(True):
            loss, data = self.make(), self.data()
            model = jnp.asarray(data + 1.0)
            whole = float(loss.value(jnp.asarray(data), model))
            np.testing.assert_allclose(float(loss.value(jnp.asarray(data), model, 2.0)), 2 * whole, rtol=1e-12)
            kept = np.ones(self.shape)
            kept[0, 0] = 0
            wild = data.copy()
            wild[0, 0] += 100
            assert float(loss.value(jnp.asarray(wild), model, jnp.asarray(kept))) == float(
                loss.value(jnp.asarray(data), model, jnp.asarray(kept))
            )

    def test_what_is_masked_has_no_weight(self) -> None:
        """Weights vanish where the mask says so, whether it is a product of vectors or not."""
        loss, data = self.make(), self.data()
        scattered = np.random.default_rng(2).random(self.shape) > 0.3
        row = np.ones(self.shape, bool)
        row[1] = False
        for valid in (scattered, row):
            weights = loss.entry_weights(np.where(valid, data, 0), valid, True)
            full = np.ones(self.shape) if weights.dense is None else weights.dense.astype(float)
            for axis, vector in enumerate(weights.rows):
                if vector is not None:
                    full = full * vector.reshape([-1 if k == axis else 1 for k in range(len(self.shape))])
            assert (full[~valid] == 0).all()
            assert (full[valid] > 0).all()
            np.testing.assert_allclose(full[valid].mean(), 1.0, rtol=1e-12)
