"""The one entry point: from labelled data and a model to a `Fit`.

Labels become arrays in `gather`, arrays become labels again in `record`; in between runs the one loop of
`tensorspec.solvers.loop`.
"""

from tensorspec.fit.call import fit as fit
from tensorspec.fit.path import path as path
from tensorspec.fit.transform import transform as transform
