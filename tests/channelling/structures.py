"""Crystals of the tests."""

from tensorspec.channelling.crystal import Crystal

CUBIC = (90.0, 90.0, 90.0)


def silicon(debye_waller=0.463):
    site = ((1 / 8, 1 / 8, 1 / 8), {"Si": 1.0}, debye_waller)
    return Crystal.from_space_group("F d -3 m:2", (5.43, 5.43, 5.43, *CUBIC), {"Si": site}, "silicon")


def spinel(cell=8.17, u=0.263):
    """LiMn2O4 with nickel, and both interstices: 16c is the empty octahedron."""
    sites = {
        "8a": ((1 / 8, 1 / 8, 1 / 8), {"Li": 0.9, "Mn": 0.03, "Ni": 0.07}, 0.8),
        "16d": ((1 / 2, 1 / 2, 1 / 2), {"Mn": 0.73, "Ni": 0.27}, 0.4),
        "16c": ((0, 0, 0), {"Li": 0.05}, 0.8),
        "32e": ((u, u, u), {"O": 1.0}, 0.7),
    }
    return Crystal.from_space_group("F d -3 m:2", (cell, cell, cell, *CUBIC), sites, "spinel")


def gallium_arsenide(inverted=False):
    first, second = ((0, 0, 0), (1 / 4, 1 / 4, 1 / 4))
    if inverted:
        first, second = second, first
    sites = {"Ga": (first, {"Ga": 1.0}, 0.6), "As": (second, {"As": 1.0}, 0.6)}
    return Crystal.from_space_group("F -4 3 m", (5.653, 5.653, 5.653, *CUBIC), sites, "GaAs")
