"""A fit from the command line: from what was typed, or written in a recipe, to the files written."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorspec.cli.cache import keep_compiled_programs
from tensorspec.cli.output import say, writable_folder, write_results
from tensorspec.cli.recipe_file import Job, Source, read_recipe
from tensorspec.cli.source import load_source, mask_of
from tensorspec.errors import InvalidArgument, MissingFile, suggest

if TYPE_CHECKING:
    import xarray as xr

    from tensorspec.solution import Fit

__all__ = ["job_from_options", "run_job"]

RUN_OPTIONS = ("restarts", "seed", "tol", "max_sweeps", "time_limit", "solver", "start", "checkpoint")
ONLY_WITHOUT_RECIPE = ("signal", "reader", "lazy", "crop", "bin", "exclude", "model", "constraint", "loss")


def job_from_options(options: argparse.Namespace) -> Job:
    """Return what to do; what is typed goes before what a recipe says.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``tensorspec fit``.

    Returns
    -------
    job : Job

    Raises
    ------
    TensorspecError
        If something cannot be meant.
    """
    path = Path(options.file).expanduser()
    given = {name: getattr(options, name) for name in RUN_OPTIONS if getattr(options, name) is not None}
    if path.suffix.lower() == ".toml":
        for name in ONLY_WITHOUT_RECIPE:
            if getattr(options, name):
                raise InvalidArgument(f"--{name} goes into the recipe {path.name!r}; it is not taken beside one")
        job = read_recipe(path)
        job = dataclasses.replace(job, options=job.options | given, rank=options.rank or job.rank)
    else:
        if options.rank is None:
            raise InvalidArgument("the number of components is missing; give it, for instance --rank 4")
        if not path.exists():
            raise MissingFile(f"there is no file {str(path)!r}.{suggest(path.name, _beside(path))}")
        source = Source(
            file=path,
            signal=int(options.signal) if options.signal and options.signal.isdecimal() else options.signal,
            reader=options.reader,
            lazy=options.lazy,
            crop={dim: _range(text, "--crop") for dim, text in _pairs(options.crop, "--crop", "DIM=LOW:HIGH")},
            bin={dim: _count(text) for dim, text in _pairs(options.bin, "--bin", "DIM=N")},
            exclude=_collect(
                (dim, _range(text, "--exclude")) for dim, text in _pairs(options.exclude, "--exclude", "DIM=LOW:HIGH")
            ),
        )
        job = Job(
            sources={"data": source},
            rank=options.rank,
            folder=path.parent,
            stem=path.stem,
            model=options.model or "nmf",
            constraints=_collect(_pairs(options.constraint, "--constraint", "MODE=NAME")),
            loss=options.loss,
            options=given,
        )
    return job if options.output is None else dataclasses.replace(job, folder=Path(options.output))


def run_job(job: Job) -> None:
    """Load, fit, print and write.

    Parameters
    ----------
    job : Job
        What to do.

    Raises
    ------
    TensorspecError
        If something does not fit together; nothing is written then.
    """
    folder = writable_folder(job.folder)
    keep_compiled_programs()
    arguments = _arguments(job)  # a misspelt constraint is told before a large file is read
    tensors, masks = {}, {}
    for name, source in job.sources.items():
        tensors[name] = load_source(source)
        masks[name] = mask_of(tensors[name], source)
        say(f"{source.file.name}: {_sizes(tensors[name])}")
    fit = _fit(tensors, masks, arguments)
    write_results(fit, folder / f"{job.stem}.fit.h5", folder / f"{job.stem}.report.html")
    if fit.status.name == "INTERRUPTED":
        say(f"interrupted after {fit.sweeps} sweeps: the best so far was saved")


def _arguments(job: Job) -> dict[str, Any]:
    """Return the arguments of `tensorspec.fit`, all but data and mask, as objects."""
    from tensorspec.cli.named import make
    from tensorspec.constraints.base import AbstractConstraint
    from tensorspec.losses import AbstractLoss
    from tensorspec.models.cp import CP, NMF
    from tensorspec.solvers.base import AbstractAnySolver
    from tensorspec.starts.base import AbstractStart

    models = {"nmf": NMF, "cp": CP}
    if job.model not in models:
        raise InvalidArgument(f"the model is {job.model!r}; there are {', '.join(models)}")
    constraints = {
        mode: [make(text, AbstractConstraint, f"the constraint of mode {mode!r}") for text in texts]
        for mode, texts in job.constraints.items()
    }
    options = dict(job.options)
    for name, base in (("solver", AbstractAnySolver), ("start", AbstractStart)):
        if options.get(name, "auto") != "auto":
            options[name] = make(options[name], base, f"the {name}")
    loss: Any = job.loss
    if isinstance(loss, str):
        loss = make(loss, AbstractLoss, "the loss")
    elif loss is not None:
        loss = {name: make(text, AbstractLoss, f"the loss of {name!r}") for name, text in loss.items()}
    model = models[job.model](job.rank, constraints, job.scale)
    return {"model": model, "loss": loss, "weights": job.weights, "modes": job.modes, **options}


def _fit(tensors: dict[str, xr.DataArray], masks: dict[str, xr.DataArray | None], arguments: dict[str, Any]) -> Fit:
    import xarray as xr

    from tensorspec.fit import fit

    model = arguments.pop("model")
    if len(tensors) == 1:
        (data,), (mask,) = tensors.values(), masks.values()
        return fit(data, model, mask=mask, **arguments)
    given = {name: xr.DataArray(True) if mask is None else mask for name, mask in masks.items()}
    return fit(tensors, model, mask=None if all(mask is None for mask in masks.values()) else given, **arguments)


def _sizes(tensor: xr.DataArray) -> str:
    sizes = ", ".join(f"{dim}: {size}" for dim, size in tensor.sizes.items())
    return f"{tensor.attrs.get('title', '')} ({sizes}) {tensor.dtype}".strip()


def _pairs(texts: list[str], option: str, form: str) -> list[tuple[str, str]]:
    found = [text.partition("=") for text in texts]
    for text, (name, _, value) in zip(texts, found, strict=True):
        if not name or not value:
            raise InvalidArgument(f"{option} is {text!r}; expected {form}")
    return [(name, value) for name, _, value in found]


def _collect(pairs: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _range(text: str, option: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = (1.0, 0.0)
    if not found[0] < found[1]:
        raise InvalidArgument(f"{option} is {text!r}; expected LOW:HIGH in units of the axis, for instance 400:900")
    return found


def _count(text: str) -> int:
    if not text.isdecimal():
        raise InvalidArgument(f"--bin is {text!r}; expected a whole number, for instance --bin energy_loss=2")
    return int(text)


def _beside(path: Path) -> list[str]:
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
