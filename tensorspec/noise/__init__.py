"""Noise of instrument data: a model of it, its estimate, and the scaling that evens Poisson noise out."""

from tensorspec.noise.average import mean_noise_variance as mean_noise_variance
from tensorspec.noise.estimate import estimate_noise as estimate_noise
from tensorspec.noise.estimate import noise_at_a_glance as noise_at_a_glance
from tensorspec.noise.model import NoiseModel as NoiseModel
from tensorspec.noise.poisson import poisson_marginals as poisson_marginals
from tensorspec.noise.poisson import poisson_scale as poisson_scale
from tensorspec.noise.poisson import undo_poisson_scale as undo_poisson_scale
from tensorspec.noise.spread import MOST_CORRELATION as MOST_CORRELATION
from tensorspec.noise.spread import event_shares as event_shares
from tensorspec.noise.spread import spread_events as spread_events
