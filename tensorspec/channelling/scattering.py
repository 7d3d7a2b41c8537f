"""Elastic scattering of the fast electron: scattering factors, thermal diffuse absorption, structure factors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tensorspec.channelling.crystal import Crystal, element_of
from tensorspec.channelling.electron import lorentz_factor, speed
from tensorspec.errors import InvalidArgument, MissingDependency, UnknownName

__all__ = ["absorptive_factor", "scattering_factor", "structure_factors"]

BOHR = 0.529177210903  # angstrom
# h / (m0 c), angstrom: the Compton wavelength.
COMPTON = 0.02426310238
# s up to which the X-ray table holds; beyond, what is left of it falls as a Coulomb field seen through a cusp does.
LARGEST_XRAY = 6.0
# Between these s (one over angstrom) the electron table is left for the Mott-Bethe relation, which loses digits below.
JOIN = (0.1, 0.4)
# Points of the integral over thermal diffuse scattering, and how far it goes.
RADIAL, ANGLES, FARTHEST = 160, 24, 25.0
NODES = np.concatenate([np.linspace(0, 1, 21), np.linspace(1.1, 3, 20), np.linspace(3.25, 6, 12)])


def scattering_factor(element: str, s: np.ndarray | float) -> np.ndarray:
    """Return the electron scattering factor of a neutral atom at rest mass, angstrom.

    Parameters
    ----------
    element : str
        Symbol.
    s : array
        Half the length of the scattering vector, one over angstrom, without two pi; 0 and more.

    Returns
    -------
    array
        In the shape of `s`.

    Raises
    ------
    UnknownName
        If there is no table of the element.

    Notes
    -----
    The Mott-Bethe relation on the X-ray factors of Waasmaier and Kirfel, Acta Crystallographica A51 (1995) 416,
    doi:10.1107/S0108767394013292; at small `s`, where it is a difference of near equals, the electron table of the
    International Tables C, 4.3.2.2.

    Examples
    --------
    >>> scattering_factor("Si", np.array([0.0, 0.5])).round(2)
    array([5.83, 0.74])
    """
    s = np.abs(np.asarray(s, dtype=float))
    low = _electron_table(element, np.minimum(s, 2.0))
    number = int(element_of(element).atomic_number)
    away = np.maximum(s, JOIN[0] / 2)
    xray = _xray_factor(element, np.minimum(away, LARGEST_XRAY)) * np.minimum(1.0, LARGEST_XRAY / away) ** 4
    high = (number - xray) / (8 * np.pi**2 * BOHR * away**2)
    share = np.clip((s - JOIN[0]) / (JOIN[1] - JOIN[0]), 0, 1)
    share = share**2 * (3 - 2 * share)
    return (1 - share) * low + share * high


def absorptive_factor(element: str, debye_waller: float, s: np.ndarray | float, beam_energy: float) -> np.ndarray:
    """Return the absorptive scattering factor of thermal diffuse scattering, angstrom.

    Parameters
    ----------
    element : str
        Symbol.
    debye_waller : float
        ``B`` of the atom, angstrom squared.
    s : array
        Half the length of the scattering vector, one over angstrom; at most 6.
    beam_energy : float
        keV.

    Returns
    -------
    array
        Negative at large `s`, as the model has it.

    Notes
    -----
    Einstein model: Hall and Hirsch 1965, doi:10.1098/rspa.1965.0136; Bird and King, Acta Crystallographica A46 (1990)
    202, doi:10.1107/S0108767389011906. ``f'(s) = 2 h / (beta m0 c) * integral of f(|s/2 + s'|) f(|s/2 - s'|)
    (1 - exp(-2 B (s'^2 - s^2/4)))`` over the plane of ``s'``, to 25 per angstrom; only ``beta`` depends on the energy.

    Examples
    --------
    >>> absorptive_factor("Al", 0.4, np.array([0.0, 1.0]), 200).round(4)
    array([0.0294, 0.0146])
    """
    s = np.abs(np.asarray(s, dtype=float))
    if s.size and s.max() > NODES[-1]:
        raise InvalidArgument(f"absorptive_factor: s up to {s.max():.3g} per angstrom; known up to {NODES[-1]:g}")
    from scipy.interpolate import CubicSpline

    values = _absorptive_integral(element, round(float(debye_waller), 6))
    return CubicSpline(NODES, values)(s) / speed(beam_energy)


def structure_factors(
    crystal: Crystal, indices: np.ndarray, beam_energy: float, absorption: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Fourier coefficients of the potential and of the absorption, ``U_g`` and ``U'_g``.

    Parameters
    ----------
    crystal : Crystal
        Structure.
    indices : (reflections, 3) array
        Of the reciprocal vectors.
    beam_energy : float
        keV.
    absorption : bool
        Whether the second is computed, else it is zero: then nothing is ever absorbed, which no crystal does.

    Returns
    -------
    potential, absorptive : (reflections,) complex arrays
        One over angstrom squared: ``gamma / (pi volume) * sum of occupancy * f * exp(-B s^2) * exp(-2 pi i g r)``. The
        extinction distance is ``1 / (wavelength |U_g|)``; the mean absorption ``2 pi wavelength U'_0``.

    Examples
    --------
    >>> from tensorspec.channelling.electron import wavelength
    >>> cell = Crystal.from_space_group("F d -3 m:2", (5.43,) * 3 + (90,) * 3, {"Si": ((1/8,) * 3, {"Si": 1}, 0.463)})
    >>> potential, absorptive = structure_factors(cell, np.array([[2, 2, 0], [0, 0, 0]]), 200)
    >>> round(float(0.1 / (wavelength(200) * abs(potential[0]))), 1)  # nm
    99.7
    """
    indices = np.atleast_2d(np.asarray(indices, dtype=float))
    lengths = np.linalg.norm(indices @ crystal.metric, axis=1) / 2
    # Equal lengths have equal factors.
    rounded, back = np.unique(lengths.round(9), return_inverse=True)
    potential, absorptive = np.zeros(len(indices), complex), np.zeros(len(indices), complex)
    for site in crystal.sites:
        phases = np.exp(-2j * np.pi * indices @ site.positions.T).sum(axis=1)
        phases *= np.exp(-site.debye_waller * lengths**2)
        for element, occupancy in site.occupants.items():
            if occupancy == 0:
                continue
            potential += occupancy * scattering_factor(element, rounded)[back] * phases
            if absorption:
                own = absorptive_factor(element, site.debye_waller, rounded, beam_energy)[back]
                absorptive += occupancy * own * phases
    scale = lorentz_factor(beam_energy) / (np.pi * crystal.volume)
    return scale * potential, scale * absorptive


def _electron_table(element: str, s: np.ndarray) -> np.ndarray:
    table = element_of(element).c4322
    if table is None:
        raise UnknownName(f"no electron scattering factor of {element!r}; known are neutral atoms up to Cf")
    a, b = np.asarray(table.a), np.asarray(table.b)
    return (a * np.exp(-b * np.square(s)[..., np.newaxis])).sum(axis=-1)


def _xray_factor(element: str, s: np.ndarray) -> np.ndarray:
    try:
        import xraydb
    except ImportError:
        raise MissingDependency(
            'scattering factors need xraydb, which is not installed; type: pip install "tensorspec[channelling]"'
        ) from None
    return np.asarray(xraydb.f0(element, np.ravel(s)), dtype=float).reshape(np.shape(s))


@lru_cache(maxsize=256)
def _absorptive_integral(element: str, debye_waller: float) -> np.ndarray:
    """Return the absorptive factor times beta at the nodes, angstrom."""
    fine = np.concatenate([[0.0], np.geomspace(1e-3, 2 * FARTHEST, 4000)])
    factors = scattering_factor(element, fine)
    nodes, weights = np.polynomial.legendre.leggauss(RADIAL)
    # Most points where the atom scatters most: r = t^2.
    t = 0.5 * (nodes + 1) * np.sqrt(FARTHEST)
    radius, measure = t**2, 0.5 * np.sqrt(FARTHEST) * weights * 2 * t**3
    angles, angle_weights = np.polynomial.legendre.leggauss(ANGLES)
    angle = 0.25 * np.pi * (angles + 1)  # a quarter: the integrand is the same in all four
    around = 0.25 * np.pi * angle_weights * 4
    result = np.empty(len(NODES))
    for k, s in enumerate(NODES):
        along = radius[:, np.newaxis] * np.cos(angle) * s
        plus = np.sqrt(np.maximum(radius[:, np.newaxis] ** 2 + s**2 / 4 + along, 0))
        minus = np.sqrt(np.maximum(radius[:, np.newaxis] ** 2 + s**2 / 4 - along, 0))
        product = np.interp(plus, fine, factors) * np.interp(minus, fine, factors)
        thermal = -np.expm1(-2 * debye_waller * (radius[:, np.newaxis] ** 2 - s**2 / 4))
        result[k] = measure @ (product * thermal) @ around
    return 2 * COMPTON * result
