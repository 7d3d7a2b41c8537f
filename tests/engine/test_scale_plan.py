"""Who carries the scale: on every graph exactly the freedom that there is is taken away, and no tensor changes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from tensorspec.errors import ConstraintConflict, UnknownMode
from tensorspec.scale import plan_scale

from . import reference

GRAPHS = [
    ["pe"],
    ["pet"],
    ["pets"],
    ["pe", "ps"],
    ["pet", "ps"],
    ["pe", "ps", "et"],
    ["pet", "pes"],
    ["pet", "pe"],
    ["pe", "pe"],
    ["pe", "ps", "pu"],
    ["pe", "ts"],
    ["pe", "pu", "ts", "tv"],
    ["pe", "et", "tp"],
    ["pets", "pu", "ev"],
    ["ab", "bc", "cd", "da"],
]
SIZE = 3


def plans(graph, most=2):
    """Every plan of a graph with two components, over which modes fix whose scale."""
    tensors = [tuple(tensor) for tensor in graph]
    modes = list(dict.fromkeys(mode for tensor in tensors for mode in tensor))
    for pattern in itertools.product([(False, False), (True, False), (False, True), (True, True)], repeat=len(modes)):
        if sum(any(columns) for columns in pattern) <= most:
            fixed = dict(zip(modes, pattern, strict=True))
            yield tensors, modes, fixed, plan_scale(tensors, 2, fixed, dict.fromkeys(modes, True))


@pytest.mark.parametrize("graph", GRAPHS, ids="-".join)
def test_the_freedom_of_scale_is_taken_away_exactly(graph):
    for tensors, modes, fixed, plan in plans(graph):
        for column in range(2):
            free = [mode for mode in modes if not fixed[mode][column]]
            incidence = np.array([[mode in tensor for mode in free] for tensor in tensors], float)
            freedom = len(free) - (np.linalg.matrix_rank(incidence) if free else 0)
            items = [item for item in plan.normalisations if item.columns[column]]
            moves = np.array([[dict(item.exponents).get(mode, 0) for mode in free] for item in items])
            assert len(items) == freedom
            assert freedom == 0 or np.linalg.matrix_rank(moves) == freedom
            for item in items:
                assert not any(fixed[mode][column] for mode, _ in item.exponents)
                powers = dict(item.exponents)
                assert all(sum(powers.get(mode, 0) for mode in tensor) == 0 for tensor in tensors)
        # Modes of one tensor cannot be updated together.
        assert all(len(set(block) & set(tensor)) < 2 for block in plan.blocks for tensor in tensors)
        assert sorted(mode for block in plan.blocks for mode in block) == sorted(modes)
        assert plan.carriers[0] in tensors[0]


@pytest.mark.parametrize("graph", GRAPHS, ids="-".join)
def test_moving_scale_changes_no_tensor(graph):
    rng = np.random.default_rng(0)
    for tensors, modes, fixed, plan in itertools.islice(plans(graph, most=1), 0, None, 3):
        weights = [jnp.asarray(w) for w in rng.uniform(0.3, 3, len(tensors))]
        factors = {mode: jnp.asarray(rng.standard_normal((SIZE, 2))) for mode in modes}
        moved = plan.retract(factors, factors, weights)
        for tensor in tensors:
            np.testing.assert_allclose(reference.model(moved, tensor), reference.model(factors, tensor), rtol=1e-10)
        for item in plan.normalisations:
            square = sum(
                (1.0 if k is None else float(weights[k])) * np.sum(np.square(moved[mode]), axis=0)
                for mode, k in zip(item.modes, item.tensors, strict=True)
            )
            np.testing.assert_allclose(square[list(item.columns)], 1, rtol=1e-12)
        again = plan.retract(moved, moved, weights)
        for mode in modes:
            np.testing.assert_allclose(again[mode], moved[mode], rtol=1e-12)
            columns = list(fixed[mode])
            np.testing.assert_array_equal(np.asarray(moved[mode])[:, columns], np.asarray(factors[mode])[:, columns])


def test_the_rule_of_the_carrier():
    def carriers(graph, fixed=(), scale=None):
        tensors = [tuple(tensor) for tensor in graph]
        modes = {mode for tensor in tensors for mode in tensor}
        free = dict.fromkeys(modes, True)
        return plan_scale(tensors, 2, {mode: (mode in fixed,) * 2 for mode in modes}, free, scale).carriers

    assert carriers(["pet"]) == ("p",)
    assert carriers(["ep", "sp"]) == ("p", "p")  # the shared one
    assert carriers(["pet"], fixed="p") == ("t",)  # the last, where the first has a scale of its own
    assert carriers(["pe", "ps"], fixed="p") == ("e", "s")
    assert carriers(["pe", "ps", "et"]) == ("p", "p", "t")
    assert carriers(["pet"], scale="e") == ("e",)
    with pytest.raises(UnknownMode, match="these data have modes"):
        carriers(["pe"], scale="q")
    with pytest.raises(ConstraintConflict, match="shared by 2 tensors"):
        carriers(["pe", "ps"], fixed="p", scale="p")


def test_a_norm_is_free_only_if_nothing_feels_the_move():
    def free(graph, penalised):
        tensors = [tuple(tensor) for tensor in graph]
        modes = {mode for tensor in tensors for mode in tensor}
        plan = plan_scale(tensors, 1, {mode: (False,) for mode in modes}, {m: m not in penalised for m in modes})
        return {item.modes: item.free for item in plan.normalisations}

    assert free(["pet"], "") == {("e",): True, ("t",): True}
    assert free(["pet"], "p") == {("e",): False, ("t",): False}
    assert free(["pet"], "e") == {("e",): False, ("t",): True}
    # The scale of e goes to t, whose norm holds it down together with s, and from there to p.
    assert free(["pet", "ps"], "p") == {("e",): False, ("t", "s"): False}
    assert free(["pet", "ps"], "") == {("e",): True, ("t", "s"): True}


@pytest.mark.parametrize("order", ["pet", "pte"])
def test_partners_are_modes_without_a_penalty_whatever_the_order(order):
    def partners(penalised):
        tensors = [tuple(order), ("p", "s")]
        modes = {mode for tensor in tensors for mode in tensor}
        plan = plan_scale(tensors, 1, dict.fromkeys(modes, (False,)), {mode: mode not in penalised for mode in modes})
        return plan.normalisations[-1].modes

    assert partners("es") == ("t", "s")
    assert partners("ps") == (order[-1], "s")
