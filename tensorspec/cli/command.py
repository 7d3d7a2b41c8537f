"""What a user types in a terminal: the commands, and how a mistake is answered."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from tensorspec import __version__
from tensorspec.errors import TensorspecError

__all__ = ["main"]

MISTAKE = 2

FIT_EPILOG = """\
examples:
  tensorspec fit spectrum_image.dm3 --rank 4
  tensorspec fit map.bcf --signal EDX --rank 5 --crop xray_energy=0.5:10 --bin xray_energy=2
  tensorspec fit si.hspy --rank 4 --constraint pixel=SoftOrthogonal --constraint energy_loss=Sparse:0.01
  tensorspec fit recipe.toml

Ctrl-C saves the best so far.  Constraints, losses, solvers and starts are named as in Python, with their arguments
after a colon or in brackets: Sparse:0.01 or "Sparse(0.01, components=[1, 2])".
"""


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        self.exit(MISTAKE, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What was typed after ``tensorspec``; by default what this process was started with.

    Returns
    -------
    status : int
        0, or 2 after one line on the error stream that says what to do.

    Examples
    --------
    >>> main(["info", "no_such_file.dm3"])
    2
    """
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # argparse ends the process; callers in Python want the status
        return int(end.code or 0)
    name = f"tensorspec {options.command}"
    try:
        with _plain_warnings(name):
            options.run(options)
            sys.stdout.flush()
        return 0
    except TensorspecError as error:
        return _fail(name, _as_typed(str(error)))
    except KeyboardInterrupt as stop:
        notes = getattr(stop, "__notes__", [])
        return _fail(name, "; ".join(notes) or "interrupted before there was anything to save")
    except BrokenPipeError:
        # The reader of a pipe went away, as `tensorspec info FILE | head` does; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(name, f"{error.strerror or error}: {error.filename!r}" if error.filename else str(error))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tensorspec",
        description="Factorize spectrum images into components: maps, spectra and whatever other modes the data have.",
    )
    parser.add_argument("--version", action="version", version=f"tensorspec {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_demo(commands)
    _add_info(commands)
    _add_fit(commands)
    _add_report(commands)
    _add_channelling(commands)
    doctor = _add(commands, "doctor", "versions, threads, devices, memory, folder of compiled programs", _doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add(
    commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], None], epilog: str | None = None
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    text = "EELS and EDX of one cross-section with known truth: fitted together, with table, picture, report and file"
    parser = _add(commands, "demo", text, _demo)
    parser.add_argument("--output", metavar="DIR", default=".", help="folder to write into (default: this one)")
    parser.add_argument("--shape", metavar=("Y", "X"), type=int, nargs=2, help="pixels of the phantom")
    parser.add_argument("--seed", type=int, default=0, help="of noise and start (default: 0)")


def _add_info(commands: Any) -> None:
    parser = _add(commands, "info", "what a file holds: signals with shape, axes and units, or a saved fit", _info)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--reader", metavar="NAME", help="RosettaSciIO's reader, where the extension is misleading")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_fit(commands: Any) -> None:
    text = "fit a file, or what a recipe says; writes FILE.fit.h5 and FILE.report.html"
    parser = _add(commands, "fit", text, _fit, FIT_EPILOG)
    parser.add_argument("file", metavar="FILE", help="an instrument's file, or a recipe.toml")
    parser.add_argument("--output", metavar="DIR", help="folder to write into (default: beside FILE)")
    data = parser.add_argument_group("data (in a recipe: under [data])")
    data.add_argument("--signal", metavar="NAME", help="name or number of the signal, where FILE holds several")
    data.add_argument("--reader", metavar="NAME", help="RosettaSciIO's reader, where the extension is misleading")
    several: dict[str, Any] = {"action": "append", "default": []}
    data.add_argument(
        "--lazy", action="store_true", help="leave data on disk that would fill the memory; fit in blocks"
    )
    data.add_argument("--crop", metavar="DIM=LOW:HIGH", help="keep a range of coordinates; may be repeated", **several)
    data.add_argument("--bin", metavar="DIM=N", help="sum N neighbours; may be repeated", **several)
    data.add_argument("--exclude", metavar="DIM=LOW:HIGH", help="leave a range out of the fit; repeatable", **several)
    model = parser.add_argument_group("model (in a recipe: under [model])")
    model.add_argument("--rank", type=int, help="number of components")
    model.add_argument("--model", choices=("nmf", "cp"), help="nmf: no negative values anywhere (default); cp: free")
    model.add_argument("--constraint", metavar="MODE=NAME", help="such as pixel=SoftOrthogonal; repeatable", **several)
    model.add_argument("--loss", metavar="NAME", help="such as LeastSquares:poisson (default: LeastSquares)")
    run = parser.add_argument_group("fit (in a recipe: under [fit])")
    run.add_argument("--restarts", type=int, help="number of starts; the best is kept (default: 1)")
    run.add_argument("--seed", type=int, help="of random starts (default: 0)")
    run.add_argument("--tol", type=float, help="relative decrease that counts as none (default: 1e-6)")
    run.add_argument("--max-sweeps", type=int, metavar="N", help="largest number of sweeps (default: 1000)")
    run.add_argument("--time-limit", type=float, metavar="SECONDS", help="then keep the best so far")
    run.add_argument("--solver", metavar="NAME", help="HALS or AOADMM (default: chosen for you)")
    run.add_argument("--start", metavar="NAME", help="NNDSVD, VCA, SPA, SSS or Random (default: chosen for you)")
    run.add_argument("--checkpoint", metavar="PATH", help="go on from there after the fit was killed")


def _add_report(commands: Any) -> None:
    parser = _add(commands, "report", "write the HTML report of a saved fit", _report)
    parser.add_argument("file", metavar="FIT.h5")
    parser.add_argument("--output", metavar="DIR", help="folder to write into (default: beside FIT.h5)")


def _add_channelling(commands: Any) -> None:
    text = "site occupancies from line counts over orientation, as a recipe says; writes a figure and a JSON file"
    parser = _add(commands, "channelling", text, _channelling)
    parser.add_argument("file", metavar="RECIPE.toml")
    parser.add_argument("--output", metavar="DIR", help="folder to write into (default: beside the recipe)")


# Every command loads what it needs when it runs, so that help and `info` do not wait for JAX.


def _demo(options: argparse.Namespace) -> None:
    from tensorspec.cli.demo import run_demo

    run_demo(options.output, options.shape, options.seed)


def _info(options: argparse.Namespace) -> None:
    from tensorspec.cli.info import run_info

    run_info(options.file, options.reader, options.json)


def _fit(options: argparse.Namespace) -> None:
    from tensorspec.cli.job import job_from_options, run_job

    run_job(job_from_options(options))


def _report(options: argparse.Namespace) -> None:
    from tensorspec.cli.info import run_report

    run_report(options.file, options.output)


def _channelling(options: argparse.Namespace) -> None:
    from tensorspec.cli.channelling import run_channelling

    run_channelling(options.file, options.output)


def _doctor(options: argparse.Namespace) -> None:
    from tensorspec.cli.doctor import run_doctor

    run_doctor(options.json)


def _fail(name: str, message: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{name}: {_one_line(message)}\n")
    return MISTAKE


def _one_line(message: str) -> str:
    """Return a message on one line; the rows of a table in it are set apart by bars."""
    return " | ".join(" ".join(line.split()) for line in message.splitlines() if line.strip())


def _as_typed(message: str) -> str:
    """Return a message with Python's keywords as the options of the command line.

    Examples
    --------
    >>> _as_typed("choose one, as in signal='EDX' or signal=2; reader=... helps")
    "choose one, as in --signal 'EDX' or --signal 2; reader=... helps"
    """
    return re.sub(r"(?<![\w.(])(signal|reader|restarts|rank|tol|seed)=(?!\.)", r"--\1 ", message)


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show what the library warns of as one line each, without the place in the code."""

    def show(message: Warning | str, category: type[Warning], *details: Any) -> None:
        del details
        if issubclass(category, UserWarning):
            sys.stderr.write(f"{name}: note: {_one_line(str(message))}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
