"""Data sets with known truth: a cross-section by EELS and EDX, blurred discs, dual EELS, a set of order three."""

from tensorspec.phantoms.cross_section import cross_section as cross_section
from tensorspec.phantoms.discs import disc_pair as disc_pair
from tensorspec.phantoms.discs import discs as discs
from tensorspec.phantoms.dual_eels import dual_eels as dual_eels
from tensorspec.phantoms.maps import mean_overlap as mean_overlap
from tensorspec.phantoms.order3 import order3 as order3
from tensorspec.phantoms.phantom import Phantom as Phantom
