"""What every model has to keep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tensorspec.models.base import AbstractModel
from tensorspec.problem import Factors, Tensor
from tensorspec.recipe import from_recipe, to_recipe

__all__ = ["ModelContract"]


class ModelContract:
    """Tests of one model; a subclass says how it is made.

    Attributes
    ----------
    shapes : tuple of tuples of int
        Shapes of the tensors that are tried.
    """

    shapes: tuple[tuple[int, ...], ...] = ((6, 5), (4, 5, 3), (3, 4, 2, 5))

    def make(self) -> AbstractModel:
        """Return the model to test."""
        raise NotImplementedError("say how the model is made: def make(self): return Mine(rank=2)")

    def tensor(self, shape: tuple[int, ...], weighted: str = "no") -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return a random tensor in the form that models see, its scaled data and its weights."""
        rng = np.random.default_rng(5)
        data, scale, weight = rng.standard_normal(shape), 0.7, 1.3
        rows = [None] * len(shape)
        full = np.ones(shape)
        dense = None
        if weighted == "rows":
            vectors = [rng.random(n) for n in shape]
            rows = [jnp.asarray(v) for v in vectors]
            for axis, v in enumerate(vectors):
                full = full * v.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        if weighted == "dense":
            full = rng.random(shape) * (rng.random(shape) > 0.3)
            dense = (jnp.asarray(full),)
        stored = data * full if weighted == "dense" else data
        tensor = Tensor(
            modes=tuple("abcd"[: len(shape)]),
            blocks=(jnp.asarray(stored),),
            scale=jnp.asarray(scale),
            weight=jnp.asarray(weight),
            rows=tuple(rows),
            dense=dense,
            square_norm=jnp.asarray(np.sum(full * np.square(scale * data))),
            core=self.make().core_of("data", {"data": tuple("abcd"[: len(shape)])}),
        )
        return tensor, scale * data, full

    def factors(self, shape: tuple[int, ...]) -> Factors:
        """Return random factors."""
        rng = np.random.default_rng(6)
        sizes = dict(zip("abcd", shape, strict=False))
        shapes = self.make().shapes({"data": tuple(sizes)}, sizes)
        return {name: jnp.asarray(rng.standard_normal(own)) for name, own in shapes.items()}

    def test_comes_back_from_json(self) -> None:
        """The settings survive JSON."""
        made = self.make()
        assert to_recipe(from_recipe(json.loads(json.dumps(to_recipe(made))))) == to_recipe(made)

    def cases(self) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray, Factors]]:
        """Yield tensors of every shape with every kind of weights, their data and weights, and factors."""
        for shape in self.shapes:
            for kind in ("no", "rows", "dense"):
                yield *self.tensor(shape, kind), self.factors(shape)

    def test_normal_equations_are_the_derivative(self) -> None:
        """A G - M is the gradient of half the weighted squared residual, with every kind of weights."""
        with jax.enable_x64(True):
            model = self.make()

            @eqx.filter_jit
            def both(tensor: Tensor, data: np.ndarray, full: np.ndarray, factors: Factors) -> dict[str, Any]:
                def half_square(own: Factors) -> jax.Array:
                    return 0.5 * tensor.weight * jnp.sum(full * jnp.square(data - model.reconstruct(tensor, own)))

                expected = jax.grad(half_square)(factors)
                return {mode: (model.normal_equations(tensor, factors, mode), expected[mode]) for mode in factors}

            for tensor, data, full, factors in self.cases():
                for mode, (equations, expected) in both(tensor, data, full, factors).items():
                    product = "nr,nrs->ns" if equations.per_row else "nr,rs->ns"
                    gradient = np.einsum(product, factors[mode], equations.gram) - equations.right
                    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9)

    def test_value_of_the_equations_is_the_objective(self) -> None:
        """Half the norm of the data plus the value of the equations is half the squared residual."""
        with jax.enable_x64(True):
            model = self.make()

            @eqx.filter_jit
            def both(tensor: Tensor, factors: Factors) -> tuple[Any, ...]:
                values = {mode: model.normal_equations(tensor, factors, mode).value(factors[mode]) for mode in factors}
                return model.reconstruct(tensor, factors), model.squared_residual(tensor, factors), values

            for tensor, data, full, factors in self.cases():
                model_values, residual, values = both(tensor, factors)
                direct = np.sum(full * np.square(data - np.asarray(model_values)))
                np.testing.assert_allclose(residual, direct, rtol=1e-10)
                for value in values.values():
                    total = 0.5 * tensor.weight * tensor.square_norm + value
                    np.testing.assert_allclose(total, 0.5 * 1.3 * direct, rtol=1e-9)

    def test_blocks_add_up(self) -> None:
        """The data cut along the first axis give the same equations as in one piece."""
        with jax.enable_x64(True):
            model = self.make()

            @eqx.filter_jit
            def equations(tensor: Tensor, factors: Factors) -> tuple[Any, ...]:
                found = {mode: model.normal_equations(tensor, factors, mode) for mode in factors}
                return {mode: (own.gram, own.right) for mode, own in found.items()}, model.squared_residual(
                    tensor, factors
                )

            for tensor, data, _, factors in self.cases():
                cuts = (1, len(data) - 1)
                pieces = tuple(jnp.split(tensor.blocks[0], cuts))
                dense = None if tensor.dense is None else tuple(jnp.split(tensor.dense[0], cuts))
                cut = dataclasses.replace(tensor, blocks=pieces, dense=dense)
                (one, whole), (many, pieced) = equations(tensor, factors), equations(cut, factors)
                for mode in factors:
                    for found, expected in zip(many[mode], one[mode], strict=True):
                        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
                np.testing.assert_allclose(pieced, whole, rtol=1e-11)
