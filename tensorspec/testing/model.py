"""What every model has to keep."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

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

    def test_normal_equations_are_the_derivative(self) -> None:
        """A G - M is the gradient of half the weighted squared residual, with every kind of weights."""
        with jax.enable_x64(True):
            model = self.make()
            for shape in self.shapes:
                for kind in ("no", "rows", "dense"):
                    tensor, data, full = self.tensor(shape, kind)
                    factors = self.factors(shape)
                    for mode in factors:

                        def half_square(own: jax.Array, case: Any = (tensor, factors, mode, data, full)) -> jax.Array:
                            tensor, factors, mode, data, full = case
                            value = model.reconstruct(tensor, {**factors, mode: own})
                            return 0.5 * tensor.weight * jnp.sum(full * jnp.square(data - value))

                        equations = model.normal_equations(tensor, factors, mode)
                        own = factors[mode]
                        if equations.per_row:
                            gradient = jnp.einsum("nr,nrs->ns", own, equations.gram) - equations.right
                        else:
                            gradient = own @ equations.gram - equations.right
                        np.testing.assert_allclose(gradient, jax.grad(half_square)(own), rtol=1e-9, atol=1e-9)

    def test_value_of_the_equations_is_the_objective(self) -> None:
        """Half the norm of the data plus the value of the equations is half the squared residual."""
        with jax.enable_x64(True):
            model = self.make()
            for shape in self.shapes:
                for kind in ("no", "rows", "dense"):
                    tensor, data, full = self.tensor(shape, kind)
                    factors = self.factors(shape)
                    direct = np.sum(full * np.square(data - np.asarray(model.reconstruct(tensor, factors))))
                    np.testing.assert_allclose(model.squared_residual(tensor, factors), direct, rtol=1e-10)
                    for mode in factors:
                        value = model.normal_equations(tensor, factors, mode).value(factors[mode])
                        total = 0.5 * tensor.weight * tensor.square_norm + value
                        np.testing.assert_allclose(total, 0.5 * 1.3 * direct, rtol=1e-9)

    def test_blocks_add_up(self) -> None:
        """The data cut along the first axis give the same equations as in one piece."""
        with jax.enable_x64(True):
            model = self.make()
            for shape in self.shapes:
                for kind in ("no", "rows", "dense"):
                    tensor, _, _ = self.tensor(shape, kind)
                    cuts = (1, shape[0] - 1)
                    pieces = tuple(jnp.split(tensor.blocks[0], cuts))
                    dense = None if tensor.dense is None else tuple(jnp.split(tensor.dense[0], cuts))
                    cut = dataclasses.replace(tensor, blocks=pieces, dense=dense)
                    factors = self.factors(shape)
                    for mode in factors:
                        one = model.normal_equations(tensor, factors, mode)
                        many = model.normal_equations(cut, factors, mode)
                        np.testing.assert_allclose(many.gram, one.gram, rtol=1e-11, atol=1e-12)
                        np.testing.assert_allclose(many.right, one.right, rtol=1e-11, atol=1e-12)
                    np.testing.assert_allclose(
                        model.squared_residual(cut, factors), model.squared_residual(tensor, factors), rtol=1e-11
                    )
