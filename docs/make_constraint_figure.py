"""Make the figure and the table of the page "Which constraint?": the same phantom under each of them.

Run it from the checkout: ``python docs/make_constraint_figure.py``.  It prints the table.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import tensorspec as ts

OUT = Path(__file__).parent / "_static" / "which_constraint.png"
COLOURS = ["#0072B2", "#D55E00", "#009E73"]
COUNTS = 500
PHANTOM = ts.phantoms.discs("eels", counts=COUNTS, seed=0)
DATA, TRUTH = PHANTOM["data"], PHANTOM["truth"]
ENERGY = str(next(dim for dim in DATA.dims if dim not in ("y", "x")))
KNOWN = TRUTH["spectra"].sel(component=[3]) * COUNTS
ROWS = [
    ("NonNegative everywhere", {}),
    ("pixel: Sparse(0.1)", {"pixel": ts.Sparse(0.1)}),
    ("pixel: SoftOrthogonal()", {"pixel": ts.SoftOrthogonal()}),
    ('pixel: SumToOne("component")', {"pixel": ts.SumToOne("component")}),
    ("pixel: Smooth(1)", {"pixel": ts.Smooth(1.0)}),
    ("pixel: TotalVariation(0.1)", {"pixel": ts.TotalVariation(0.1)}),
    ("energy: Smooth(1e-3)", {ENERGY: ts.Smooth(1e-3)}),
    ("energy: Sparse(1)", {ENERGY: ts.Sparse(1.0)}),
    ("energy: Fixed(matrix)", {ENERGY: ts.Fixed(KNOWN)}),
    ("energy: MinimumVolume(300)", {ENERGY: ts.MinimumVolume(300)}),
]


def unit(columns):
    """Return rows at unit norm."""
    return columns / np.linalg.norm(columns, axis=1, keepdims=True)


def judge(fit):
    """Return which component of the fit is which of the truth, mean angles of maps and spectra, and the overlap."""
    from scipy.optimize import linear_sum_assignment

    maps, spectra = fit.maps().values.reshape(3, -1), fit.spectra().values
    true_maps, true_spectra = TRUTH["maps"].values.reshape(3, -1), TRUTH["spectra"].values
    chord = np.linalg.norm(unit(spectra)[:, None] - unit(true_spectra)[None], axis=2)
    angle = np.degrees(2 * np.arcsin(chord / 2))
    order = linear_sum_assignment(angle.T)[1]
    chord = np.linalg.norm(unit(maps)[order] - unit(true_maps), axis=1)
    cosine = unit(maps) @ unit(maps).T
    return (
        order,
        np.degrees(2 * np.arcsin(chord / 2)).mean(),
        angle[order, range(3)].mean(),
        cosine[np.triu_indices(3, 1)].mean(),
    )


def main():
    """Fit, print the table, draw the figure."""
    figure, axes = plt.subplots(len(ROWS) + 1, 4, figsize=(8.2, 1.15 * (len(ROWS) + 1)), width_ratios=[1, 1, 1, 2.2])
    draw(axes[0], "truth", TRUTH["maps"].values, TRUTH["spectra"].values)
    least = None
    print("| constraint | maps, degrees | spectra, degrees | overlap of the maps | misfit, % above the first row |")
    print("|---|---|---|---|---|")
    for own, (label, given) in zip(axes[1:], ROWS, strict=True):
        fit = ts.fit(DATA, ts.NMF(3, given), restarts=3, progress=False)
        order, maps, spectra, overlap = judge(fit)
        misfit = float((fit.residual() ** 2).sum())
        least = misfit if least is None else least
        print(f"| `{label}` | {maps:.1f} | {spectra:.1f} | {overlap:.2f} | {100 * (misfit / least - 1):+.2f} |")
        draw(own, label, fit.maps().values[order], fit.spectra().values[order])
    figure.tight_layout(h_pad=0.2, w_pad=0.3)
    figure.savefig(OUT, dpi=90)


def draw(axes, label, maps, spectra):
    """Draw three maps and their spectra, each spectrum at unit sum, over the true ones in grey."""
    for ax, values in zip(axes[:3], maps, strict=True):
        ax.imshow(values, vmin=0, cmap="viridis", interpolation="nearest")
        ax.set(xticks=[], yticks=[])
    axes[0].set_ylabel(label.replace(": ", ":\n"), rotation=0, ha="right", va="center", fontsize=8)
    energy = TRUTH["spectra"][ENERGY].values
    for values, true, colour in zip(spectra, TRUTH["spectra"].values, COLOURS, strict=True):
        axes[3].plot(energy, true / true.sum(), color="0.75", linewidth=2.5)
        axes[3].plot(energy, values / values.sum(), color=colour, linewidth=0.9)
    axes[3].set(yticks=[], xticks=[], ylim=(0, None))
    axes[3].spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    main()
