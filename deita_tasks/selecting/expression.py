"""Expressions of scores by which a strategy can rank: "ifd", "complexity * quality".

An expression is parsed by Python's own parser, and only the few forms below are allowed: names of
scores, numbers, + - * /, and min, max, mean and log. Nothing of it is executed.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from deita_tasks.catalogue import NAMED_SCORES
from deita_tasks.errors import UsageError
from deita_tasks.records import SCORE_KINDS, provided_column
from deita_tasks.selecting.arrays import Doubles

EVOL = ("complexity * quality", "quality * complexity")  # what ranks without an expression
LENGTH = "length"  # words in all turns, which no model counts
MAX_CHARACTERS = 500

PROVIDED = re.compile(r'\bprovided:(?:([\w.]+)|"([^"]+)")')

Operation: TypeAlias = Callable[..., Any]
OPERATORS: Mapping[type, Operation] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}


def _mean(*values: Any) -> Any:
    """Return the mean of one or more values, each (n,) or a number; added from the left."""
    return reduce(np.add, values) / len(values)


def _least(*values: Any) -> Any:
    """Return the least of one or more values, each (n,) or a number; NaN where one is NaN."""
    return reduce(np.minimum, values)


def _greatest(*values: Any) -> Any:
    """Return the greatest of one or more values, each (n,) or a number; NaN where one is NaN."""
    return reduce(np.maximum, values)


FUNCTIONS: Mapping[str, Operation] = {"min": _least, "max": _greatest, "mean": _mean, "log": np.log}


@dataclass(frozen=True)
class Expression:
    """A checked expression. text: in one spelling for all. names: of its scores, in order."""

    text: str
    names: tuple[str, ...]
    tree: ast.expr

    def evaluate(self, values: Mapping[str, Doubles]) -> Doubles:
        """Return the value for each of n turns, float64 (n,).

        `values`: by name, float64 (n,). Each operation is in float64 and by itself, so a result
        does not depend on the turns beside it. Not finite where a value is missing, or where there
        is no result (a division by 0, the logarithm of 0).
        """
        with np.errstate(all="ignore"):
            result: Doubles = _evaluate(self.tree, values)
        return result


def parse_expression(text: str) -> Expression:
    """Return the expression that `text` is. Raises UsageError for anything else."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"rank_by: {len(text)} characters; expected an expression of {MAX_CHARACTERS} at most"
        )
    source = PROVIDED.sub(lambda match: f"provided[{json.dumps(match[1] or match[2])}]", text)
    try:
        tree = _NameColumns().visit(ast.parse(source.strip(), mode="eval").body)
        _check(tree, text)
        spelling = ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _wrong(text, "not an expression") from None
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    scores = tuple(sorted({name for name in names if name not in FUNCTIONS}))
    if not scores:
        raise _wrong(text, "it names no score")
    return Expression(spelling, scores, tree)


class _NameColumns(ast.NodeTransformer):
    """Make `provided["a b"]`, in which Python's parser reads it, one name: provided:"a b"."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Return the name of a provided column; `_check` refuses any other subscript."""
        match node:
            case ast.Subscript(ast.Name("provided"), ast.Constant(str(column))):
                return ast.Name(provided_column(column))
        return node


def _check(node: ast.AST, text: str) -> None:
    """Raise UsageError unless `node` and all below it are of an allowed form."""
    match node:
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            children: list[ast.expr] = []
        case ast.Name(name):
            if not _is_score(name):
                raise _wrong(text, f"unknown score {name!r}")
            children = []
        case ast.UnaryOp(ast.USub(), operand):
            children = [operand]
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            children = [left, right]
        case ast.Call(ast.Name(name), [_, *_] as children, []) if name in FUNCTIONS:
            if name == "log" and len(children) != 1:
                raise _wrong(text, "log takes one value")
        case _:
            raise _wrong(text, f"{ast.unparse(node)!r} is not allowed")
    for child in children:
        _check(child, text)


def _is_score(name: str) -> bool:
    """Return whether an expression may use this name; any column may follow `provided:`."""
    return name in (*SCORE_KINDS, LENGTH, *NAMED_SCORES) or name.startswith("provided:")


def _wrong(text: str, problem: str) -> UsageError:
    """Return the error for an expression, with all that it may hold. The caller raises it."""
    names = ", ".join((*SCORE_KINDS, *NAMED_SCORES, LENGTH))
    return UsageError(
        f"rank_by = {text!r}: {problem}; expected scores ({names}, provided:COLUMN), numbers, "
        f"+ - * / and {', '.join(FUNCTIONS)}, such as {EVOL[0]!r}"
    )


def _evaluate(node: ast.AST, values: Mapping[str, Doubles]) -> Any:
    """Return the value of a checked node: float64 (n,), or one float64 if no score is in it.

    values: by name, float64 (n,), those of all scores in the node.
    """
    match node:
        case ast.Constant(int() | float() as number):
            return np.float64(number)
        case ast.Name(name):
            return values[name]
        case ast.UnaryOp(_, operand):
            return -_evaluate(operand, values)
        case ast.BinOp(left, operator, right):
            return OPERATORS[type(operator)](_evaluate(left, values), _evaluate(right, values))
        case ast.Call(ast.Name(name), arguments):
            return FUNCTIONS[name](*(_evaluate(argument, values) for argument in arguments))
    raise AssertionError(f"not checked: {ast.dump(node)}")
