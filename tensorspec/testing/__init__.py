"""Contract tests for whoever writes a constraint, a loss, a solver or a model of their own.

Subclass a contract, say how the object is made, and pytest runs every test that its kind has to pass::

    from tensorspec.testing import ConstraintContract

    class TestMine(ConstraintContract):
        def make(self):
            return Mine(0.5)
"""

from tensorspec.testing.constraint import ConstraintContract as ConstraintContract
from tensorspec.testing.loss import LossContract as LossContract
from tensorspec.testing.model import ModelContract as ModelContract
from tensorspec.testing.solver import SolverContract as SolverContract
