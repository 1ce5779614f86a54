"""Arithmetic on the columns of a table, as a study file writes it: `log(context / distance)`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Floats
from ablate.errors import UserError, unknown

FUNCTIONS: dict[str, Callable[[Any], Any]] = {"log": np.log, "exp": np.exp, "sqrt": np.sqrt}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(text: str, rows: pd.DataFrame) -> Floats:
    """The expression on every row (n,). Columns stand by their names, dotted ones too.

    Raises UserError for what isn't arithmetic, a column that isn't there or holds no numbers, or a value
    that isn't finite.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UserError(
            f"expression '{text}', position {error.offset}: it isn't arithmetic."
        ) from None
    with np.errstate(all="ignore"):
        found = np.asarray(_value(tree, text, rows), dtype=float)
    found = np.broadcast_to(found, (len(rows),))
    if not np.isfinite(found).all():
        row = rows.iloc[int(np.flatnonzero(~np.isfinite(found))[0])]
        at = ", ".join(f"{name}={row[name]}" for name in _columns(tree) if name in rows.columns)
        raise UserError(f"expression '{text}': it is no finite number at {at}.")
    return found


def _value(node: ast.expr, text: str, rows: pd.DataFrame) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        sides = (_value(side, text, rows) for side in (node.left, node.right))
        return _BINARY[type(node.op)](*sides)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, text, rows)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1:
        if node.func.id not in FUNCTIONS:
            raise unknown(f"expression '{text}': the function", node.func.id, FUNCTIONS)
        return FUNCTIONS[node.func.id](_value(node.args[0], text, rows))
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        if name not in rows.columns:
            raise unknown(f"expression '{text}': the column", name, rows.columns)
        try:
            return rows[name].astype(float).to_numpy()
        except ValueError:
            raise UserError(f"expression '{text}': the column '{name}' holds no numbers.") from None
    raise UserError(
        f"expression '{text}': '{ast.unparse(node)}' has no meaning here; allowed: columns, numbers, "
        f"+ - * / **, {', '.join(FUNCTIONS)}."
    )


def _columns(node: ast.expr) -> list[str]:
    """The names in it that may be columns."""
    if isinstance(node, ast.Name | ast.Attribute):
        return [ast.unparse(node)]
    return [
        name
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.expr)
        for name in _columns(child)
    ]
