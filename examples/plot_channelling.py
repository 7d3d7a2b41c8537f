"""
Which site, and which valence: a channelling scan of a spinel
=============================================================

A spinel in which some nickel and manganese has gone to the tetrahedra and to the empty octahedra, recorded as X-rays
and as energy losses at once while the beam rocks across a row. Simulated with the model that is fitted; needs
``pip install "tensorspec[channelling]"``.
"""

import matplotlib.pyplot as plt
import numpy as np

from tensorspec import channelling as ch

# %%
# The row (4 0 0) does not tell the octahedra 16d and 16c apart: all of its reflections are even. The row (1 1 1) does.

crystal = ch.phantoms.spinel(
    {
        "8a": {"Li": 0.80, "Mn": 0.14, "Ni": 0.06},
        "16d": {"Mn": 0.70, "Ni": 0.22, "Li": 0.08},
        "16c": {"Ni": 0.03},
    }
)
scans = {
    "(400)": ch.phantoms.spinel_scan((4, 0, 0), crystal=crystal, losses=1e6, seed=1),
    "(111)": ch.phantoms.spinel_scan((1, 1, 1), crystal=crystal, seed=2),
}
candidates = {"Mn": ["8a", "16d"], "Ni": ["8a", "16d", "16c"], "O": ["32e"]}
found = ch.fit_occupancy(
    {name: scan["edx"] for name, scan in scans.items()},
    {name: scan["response"] for name, scan in scans.items()},
    candidates,
)
print(found)
print(scans["(400)"].truth["share"].sel(element=["Mn", "Ni"], site=["8a", "16d", "16c"]).round(4).to_pandas())

# %%
# The counts, and what was fitted to them.

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained", sharey=True)
for axis, (name, scan) in zip(axes, scans.items(), strict=True):
    for line, colour in zip(scan["edx"].line.values, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        counts = scan["edx"].sel(line=line)
        level = float(counts.mean())
        axis.plot(counts.tilt_x, counts / level, "o", color=colour, markersize=2.5, label=str(line))
        axis.plot(counts.tilt_x, found.model[name].sel(line=line) / level, color=colour, linewidth=1)
    axis.set(xlabel="tilt (mrad)", title=f"row {name}")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("counts over their mean")
axes[1].legend(frameon=False)

# %%
# With these shares, the energy losses over orientation give a spectrum of manganese for each site. Manganese of valence
# three sits on the tetrahedra here, of valence four on the octahedra.

scan = scans["(400)"]
shares = ch.share_of(found, "Mn")
curves = ch.site_curves(
    scan["response"],
    "Mn L23",
    shares,
    {"tilt_x": scan["eels"].tilt_x},
    found.thickness["(400)"],
    offset=found.offset["(400)"],
)
spectra = ch.site_spectra(scan["eels"], curves)

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained", sharex=True)
for axis, site, valence in zip(axes, candidates["Mn"], (3, 4), strict=True):
    own = spectra.isel(component=list(spectra.site.values).index(site))
    area = float(own.spectrum.sum())
    energy = own.energy_loss.values
    axis.fill_between(
        energy, (own.spectrum - own.standard_error) / area, (own.spectrum + own.standard_error) / area, color="0.8"
    )
    axis.plot(energy, own.spectrum / area, color="#0072B2", linewidth=1, label="found")
    axis.plot(
        energy, ch.phantoms.manganese_white_lines(valence, energy), color="0.2", linewidth=1, ls="--", label="planted"
    )
    axis.set(xlabel="energy loss (eV)", title=f"{site}: {100 * shares[site]:.1f} % of the manganese")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("spectrum of a site, unit area")
axes[1].legend(frameon=False)
energy = spectra.energy_loss
references = {
    valence: energy.copy(data=ch.phantoms.manganese_white_lines(valence, energy.values)) for valence in (3, 4)
}
valences = ch.site_valence(scan["eels"], curves, references)
for place, site in enumerate(valences.site.values):
    own = valences.isel(site=place)
    print(
        f"valence on {site}: {float(own.valence):.2f}, with 95 % between {float(own.low):.2f} and {float(own.high):.2f}"
    )
for site, valence in zip(candidates["Mn"], (3, 4), strict=True):
    own = spectra.spectrum.values[list(spectra.site.values).index(site)]
    true = ch.phantoms.manganese_white_lines(valence)
    cosine = own @ true / np.linalg.norm(own) / np.linalg.norm(true)
    print(f"{site}: {np.degrees(np.arccos(min(cosine, 1))):.1f} degrees off")
