"""Constraints, losses, solvers and starts, written as text: ``Sparse:0.01`` or ``Sparse(0.01, components=[1, 2])``."""

from __future__ import annotations

import ast
import re
from typing import Any

from tensorspec.errors import InvalidArgument, TensorspecError, UnknownName, suggest

__all__ = ["call_of", "make"]

FORM = re.compile(r"\s*(?P<name>[A-Za-z]\w*)\s*(?::(?P<bare>.*)|\((?P<inside>.*)\))?\s*", re.DOTALL)


def call_of(text: str, what: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return name, arguments and keywords of a call written as text; nothing is run.

    Parameters
    ----------
    text : str
        A name, a name with a colon and arguments, or a call as in Python.  A bare word among the arguments is a string.
    what : str
        What it is, for the message.

    Returns
    -------
    name : str
    arguments : list
    keywords : dict

    Raises
    ------
    InvalidArgument
        If it cannot be read.

    Examples
    --------
    >>> call_of("Sparse:0.01,components=[1, 2]", "the constraint")
    ('Sparse', [0.01], {'components': [1, 2]})
    >>> call_of("SumToOne(component)", "the constraint")
    ('SumToOne', ['component'], {})
    """
    expected = 'expected a name with its arguments, such as NonNegative, Sparse:0.01 or "Sparse(0.01)"'
    found = FORM.fullmatch(text)
    if not found:
        raise InvalidArgument(f"{what} is {text!r}; {expected}")
    inside = found["bare"] or found["inside"] or ""
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("no call")
        arguments = [_literal(node) for node in call.args]
        keywords = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise InvalidArgument(f"{what} is {text!r}, whose arguments {inside!r} cannot be read; {expected}") from error
    return found["name"], arguments, keywords


def make(text: str, base: type, what: str) -> Any:
    """Return the object that a text names.

    Parameters
    ----------
    text : str
        As for `call_of`.
    base : type
        What it has to derive from; only public names of tensorspec are looked up.
    what : str
        What it is, for the message.

    Returns
    -------
    made : instance of `base`

    Raises
    ------
    UnknownName
        If there is no such thing.
    InvalidArgument
        If it does not take these arguments.

    Examples
    --------
    >>> from tensorspec.constraints.base import AbstractConstraint
    >>> make("Sparse:0.01", AbstractConstraint, "the constraint")
    Sparse(strength=0.01)
    """
    name, arguments, keywords = call_of(text, what)
    known = _public(base)
    if name not in known:
        raise UnknownName(f"{what} is {text!r}; there are {', '.join(known)}.{suggest(name, known)}")
    try:
        return known[name](*arguments, **keywords)
    except TensorspecError as error:
        raise InvalidArgument(f"{what} is {text!r}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} is {text!r}, which {name} does not take: {error}") from error


def _public(base: type) -> dict[str, type]:
    import tensorspec

    found = {name: getattr(tensorspec, name) for name in dir(tensorspec) if name[:1].isupper()}
    return {name: item for name, item in sorted(found.items()) if isinstance(item, type) and issubclass(item, base)}


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
