"""The Decision Transformer's files: a pickled list of dicts of arrays, an episode each.

A pickle is a program. This reader runs it on a machine of its own that has lists, tuples, dicts,
numbers, texts and arrays, and nothing else: a name in the file is looked up in a small table, never
imported, and what it stands for is done here. So there is nothing that a file could call.

Keys are the Decision Transformer's (observations, next_observations, actions, rewards, terminals).
Ours carry `timeouts` and the optional arrays as further keys, and behind the pickle, where no reader
of pickles looks, a line of JSON with the content hash and what the set says of itself.
"""

from __future__ import annotations

import json
import mmap
import pickletools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ablate.data.formats.base import Budget, Contents, one_line, printable, valid, whole
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import OPTIONAL, PER_EPISODE, REQUIRED, Trajectories
from ablate.errors import UserError

TRAILER = b"\n#ablate "
LONGEST_TRAILER = 1 << 20  # bytes
# A number alone takes at least one byte of a pickle and eight of memory; an array as much of both.
EXPANSION = 16
_PER_STEP = [name for name in OPTIONAL if name not in PER_EPISODE]
_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|\?|[iu][1248]|f[248])")


def read_pickle(path: Path, name: str | None = None) -> Trajectories:
    """Trajectories of a Decision Transformer pickle, of any protocol and any numpy's.

    An episode whose last row isn't terminal was cut: the Decision Transformer's files don't say so
    otherwise. The last row of `next_observations`, where there is one, is what was seen last.

    Raises UserError, one line, when the file is missing, damaged, asks for anything but arrays and
    plain containers, isn't what our writer wrote or breaks a rule of Trajectories.validate.
    """
    return inspect_pickle(path, name).trajectories


def inspect_pickle(path: Path, name: str | None = None, reading: Reading = AS_IT_IS) -> Contents:
    """As read_pickle, with what the file says of itself and the habits that were dealt with."""
    if not path.is_file():
        there = "is no file" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {there}.")
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            episodes = _Machine(path, data).run()
            size, behind = len(data), data.read(LONGEST_TRAILER)
    except (OSError, ValueError) as error:  # an empty file can't be mapped
        raise UserError(
            f"{path}: can't be read as a pickle, it is damaged or incomplete ({one_line(error)})."
        ) from error
    about = _trailer(path, behind)
    found, notes = _assemble(path, name or about["name"], episodes, size)
    expected = about.pop("content_hash", None)
    if expected not in (None, found.content_hash):
        raise UserError(
            f"{path}: its content has changed since it was written (hash {found.content_hash},"
            f" expected {printable(str(expected))})."
        )
    return Contents(valid(path, found), about, notes)


def write_pickle(
    path: Path, trajectories: Trajectories, about: Mapping[str, Any] | None = None
) -> None:
    """Write trajectories as the Decision Transformer's loader reads them, with further keys.

    Readable by every numpy since 1.0. `next_observations` is left out where what was seen last isn't
    known. `about` are numbers and texts. The file appears whole or not at all; raises UserError when
    it can't be written.
    """
    trailer = {**(about or {}), "name": trajectories.name}
    trailer["content_hash"] = trajectories.content_hash
    with whole(path) as temporary, open(temporary, "wb") as file:
        file.write(b"\x80\x04](")  # protocol 4, a list, its items
        for episode in _episodes(trajectories):
            file.write(b"}(")
            for key, array in episode.items():
                _write_text(file, key)
                _write_array(file, array)
            file.write(b"u")
        file.write(b"e.")
        file.write(TRAILER + json.dumps(trailer).encode())


def _episodes(trajectories: Trajectories) -> Iterator[dict[str, np.ndarray]]:
    last = trajectories.final_observations
    arrays = {
        "observations": trajectories.observations,
        "actions": trajectories.actions,
        "rewards": trajectories.rewards,
        "terminals": trajectories.terminations,
        "timeouts": trajectories.truncations,
    }
    for key in _PER_STEP:
        array = getattr(trajectories, key)
        if array is not None:
            arrays[key] = array
    for episode in range(trajectories.num_episodes):
        rows = slice(*trajectories.episode_starts[episode : episode + 2])
        found = {key: array[rows] for key, array in arrays.items()}
        if last is not None:
            seen = found["observations"]
            found["next_observations"] = np.concatenate([seen[1:], last[episode : episode + 1]])
        yield found


def _write_text(file: BinaryIO, text: str) -> None:
    encoded = text.encode()
    file.write(b"X" + struct.pack("<I", len(encoded)) + encoded)


def _write_array(file: BinaryIO, array: np.ndarray) -> None:
    """numpy's own way: _reconstruct(ndarray, (0,), b'b'), then its state."""
    plain = np.ascontiguousarray(array)
    order, code = plain.dtype.str[0], plain.dtype.str[1:]
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R")
    file.write(b"(K\x01" + b"".join(b"J" + struct.pack("<i", size) for size in plain.shape))
    file.write({1: b"\x85", 2: b"\x86"}[plain.ndim] + b"cnumpy\ndtype\n")
    _write_text(file, code)
    file.write(b"\x89\x88\x87R(K\x03")  # dtype(code, False, True), then its state
    _write_text(file, order)
    file.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
    file.write(b"\x8e" + struct.pack("<Q", plain.nbytes))
    file.write(plain.data)
    file.write(b"tb")


class _Name:
    """Stands for something that a pickle names; has no behaviour."""

    def __init__(self, role: str) -> None:
        self.role = role


class _Type:
    """A dtype being built: `code` such as "f4", and the byte order that its state gives."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class _Array:
    """An array being built; None until its state has come."""

    value: np.ndarray | None = None


_NAMES = {
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("_codecs", "encode"): _Name("encode"),
    ("collections", "OrderedDict"): _Name("dict"),
    ("collections", "defaultdict"): _Name("dict"),
    ("builtins", "list"): _Name("type"),
    ("__builtin__", "list"): _Name("type"),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name("array") for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name("scalar") for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name("buffer") for core in ("core", "_core")},
}
_MARK = object()
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Machine:
    """Runs a pickle; knows no functions but the ones below."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle holds; the file then stands behind its last instruction."""
        try:
            for opcode, argument, _ in pickletools.genops(self._data):  # type: ignore[arg-type]
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._do(opcode.name, argument)
        except UserError:
            raise
        except (IndexError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        raise ValueError("it ends early")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
            stack.append({"EMPTY_LIST": [], "EMPTY_DICT": {}, "EMPTY_TUPLE": ()}[name])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack.append(tuple([self._pop() for _ in range(count)][::-1]))
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name == "LIST":
            stack.append(self._to_mark())
        elif name == "DICT":
            found: dict[str, Any] = {}
            self._fill(found, self._to_mark())
            stack.append(found)
        elif name in ("APPEND", "APPENDS"):
            items = [self._pop()] if name == "APPEND" else self._to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._to_mark()
            self._fill(self._top(dict), items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "GLOBAL":
                module, _, attribute = argument.partition(" ")
            else:
                attribute, module = self._pop(), self._pop()
            stack.append(self._name(module, attribute))
        elif name == "REDUCE":
            arguments = self._pop()
            stack.append(self._call(self._pop(), arguments))
        elif name == "BUILD":
            state = self._pop()
            self._build(stack[-1], state)
        else:
            raise self._refusal(f"uses the pickle instruction {name}")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def _to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"no {kind.__name__} to fill")
        return self._stack[-1]

    @staticmethod
    def _fill(found: dict[Any, Any], items: Sequence[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError("a key isn't a text")
            found[key] = value

    def _name(self, module: Any, attribute: Any) -> _Name:
        if isinstance(module, str) and isinstance(attribute, str):
            known = _NAMES.get((module, attribute))
            if known is not None:
                return known
        raise self._refusal(f"asks for {printable(f'{module}.{attribute}', 80)}")

    def _call(self, what: Any, arguments: Any) -> Any:
        """What the known functions do with their arguments (the shapes of numpy's own pickles)."""
        role = what.role if isinstance(what, _Name) else None
        if role == "dict":  # OrderedDict(), defaultdict(list)
            return {}
        if role == "encode":  # how bytes are written before protocol 3
            text, encoding = arguments
            if encoding != "latin1":
                raise ValueError(f"bytes in {encoding}")
            return text.encode("latin1")
        if role == "dtype":
            return self._dtype(*arguments)
        if role == "array":
            kind, *_ = arguments
            if not (isinstance(kind, _Name) and kind.role == "ndarray"):
                raise ValueError("an array of another class")
            return _Array()
        if role == "scalar":
            kind, content = arguments
            return self._array(kind, (), content, "C")[()]
        if role == "buffer":
            content, kind, shape, order, *axes = arguments
            found = _Array()
            mixed = order == "K" and bool(axes)  # axes in another order than C's or Fortran's
            found.value = self._array(kind, shape, content, "C" if mixed else order)
            if mixed:
                found.value = found.value.transpose(axes[0])
            return found
        raise self._refusal("calls what is no array")

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, _Type):
            target.dtype = target.dtype.newbyteorder(state[1] if state[1] in "<>" else "=")
        elif isinstance(target, _Array) and target.value is None:
            _, shape, kind, fortran, content = state
            target.value = self._array(kind, shape, content, "F" if fortran else "C")
        else:
            raise self._refusal("sets the state of what is no array")

    def _dtype(self, code: Any, *_: Any) -> _Type:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise self._refusal(f"holds an array of type {printable(str(code), 40)}")
        return _Type(code)

    def _array(self, kind: Any, shape: Any, content: Any, order: Any) -> np.ndarray:
        if not isinstance(kind, _Type) or not isinstance(shape, tuple):
            raise ValueError("an array without a type or a shape")
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode("latin1")
        if not isinstance(content, bytes | bytearray):
            raise self._refusal("holds an array that isn't of numbers")
        if order not in ("C", "F") or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"an array of shape {printable(str(shape), 60)}")
        array = np.frombuffer(content, dtype=kind.dtype).reshape(shape, order=order)
        if array.dtype == np.bool_ and (array.view(np.uint8) > 1).any():
            raise ValueError("a truth value that is neither 0 nor 1")
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _refusal(self, problem: str) -> UserError:
        return UserError(
            f"{self._path}: it {problem}; only arrays of numbers and plain containers are allowed."
        )


def _trailer(path: Path, behind: bytes) -> dict[str, Any]:
    """What our writer put behind the pickle, `about` and the content hash; others put nothing there."""
    if not behind:
        return {"name": path.name}
    try:
        if not behind.startswith(TRAILER):
            raise ValueError("not ours")
        found = json.loads(behind.removeprefix(TRAILER))
        plain = {key: each for key, each in found.items() if isinstance(each, str | int | float)}
        name, digest = str(found["name"]), str(found["content_hash"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: what is behind the pickle is damaged.") from error
    return {**plain, "name": printable(name), "content_hash": digest}


def _assemble(path: Path, name: str, episodes: Any, size: int) -> tuple[Trajectories, list[str]]:
    if not isinstance(episodes, list | tuple) or not episodes:
        raise UserError(f"{path}: it holds no list of episodes.")
    notes: list[str] = []
    reader = _Arrays(path, size)
    parts: dict[str, list[np.ndarray]] = {}
    for episode, found in enumerate(episodes):
        where = f"{path}: episode {episode}"
        if not isinstance(found, dict):
            raise UserError(f"{where} is no dict of arrays.")
        arrays = reader.read(where, found)
        if parts and set(arrays) != set(parts):
            raise UserError(f"{where} has other arrays than the episodes before.")
        for key, array in arrays.items():
            parts.setdefault(key, []).append(array)
    lengths = [len(each) for each in parts["rewards"]]
    last = parts.pop("next_observations", None)
    flags = {"terminations": parts.pop("terminals"), "truncations": parts.pop("timeouts", None)}
    try:
        arrays = {key: np.concatenate(each) for key, each in parts.items()}
        if last is not None:
            arrays["final_observations"] = np.concatenate([each[-1:] for each in last])
    except ValueError as error:
        raise UserError(f"{path}: episodes differ in shape ({one_line(error)}).") from error
    ends = np.cumsum(lengths) - 1
    terminations = _flags(path, "terminals", flags["terminations"] or [])
    if flags["truncations"] is None:
        notes.append("no timeouts: episodes whose last step isn't terminal count as cut")
        truncations = np.zeros(len(terminations), dtype=bool)
        truncations[ends] = ~terminations[ends]
    else:
        truncations = _flags(path, "timeouts", flags["truncations"])
    types = {key: dtype for key, (dtype, _) in {**REQUIRED, **OPTIONAL}.items()}
    for key, array in arrays.items():
        if types[key] is np.int64 and array.dtype.kind not in "iu":
            raise UserError(f"{path}: '{key}' has type {array.dtype}; whole numbers are needed.")
    with np.errstate(over="ignore"):  # becomes infinite, which validate() refuses
        arrays = {key: np.ascontiguousarray(each, types[key]) for key, each in arrays.items()}
    starts = np.concatenate([[0], ends + 1])
    return Trajectories(
        name=name,
        **arrays,
        terminations=terminations,
        truncations=truncations,
        episode_starts=starts,
    ), notes


class _Arrays:
    """Takes the arrays of an episode, and counts what they hold: a file may name one many times."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._budget = Budget(path)
        self._left = EXPANSION * size + (1 << 20)

    def read(self, where: str, episode: dict[str, Any]) -> dict[str, np.ndarray]:
        """Arrays by our names, `rewards` and flags as (T,); others are left out."""
        names = {"dones": "terminals"} if "terminals" not in episode else {}
        known = ["observations", "actions", "rewards", "terminals", "timeouts"]
        known += ["next_observations", *_PER_STEP]
        found = {}
        for key, value in episode.items():
            name = names.get(key, key)
            if name in known:
                found[name] = self._array(f"{where}: '{key}'", value)
        for key in ("observations", "actions", "rewards", "terminals"):
            if key not in found:
                listed = ", ".join(printable(each, 40) for each in list(episode)[:12])
                raise UserError(f"{where}: the array '{key}' is missing; found: {listed}.")
        for key in ("rewards", "terminals", "timeouts"):
            if key in found and found[key].ndim == 2 and found[key].shape[1] == 1:
                found[key] = found[key][:, 0]
            if key in found and found[key].ndim != 1:
                raise UserError(f"{where}: '{key}' has shape {found[key].shape}; (T,) is needed.")
        steps = len(found["rewards"])
        if not steps or any(array.shape[:1] != (steps,) for array in found.values()):
            shapes = ", ".join(f"{key} {array.shape}" for key, array in found.items())
            raise UserError(f"{where}: the arrays differ in length or are empty: {shapes}.")
        return found

    def _array(self, where: str, value: Any, depth: int = 3) -> np.ndarray:
        if isinstance(value, _Array) and value.value is not None:
            self._count(where, value.value.nbytes)
            return value.value
        if isinstance(value, bool | int | float | np.generic):
            self._count(where, 8)
            return np.asarray(value)
        if isinstance(value, list | tuple) and value and depth:
            try:
                if all(isinstance(each, bool | int | float) for each in value):
                    self._count(where, 8 * len(value))
                    found = np.array(value)
                else:
                    found = np.stack([self._array(where, each, depth - 1) for each in value])
            except (ValueError, OverflowError) as error:
                raise UserError(f"{where} differs in shape from row to row.") from error
            if found.dtype.kind in "biuf":
                return found
        raise UserError(f"{where} isn't an array of numbers.")

    def _count(self, where: str, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise UserError(f"{where}: more numbers are named than the file holds.")
        self._budget.take(size * 4, where)


def _flags(path: Path, key: str, parts: list[np.ndarray]) -> np.ndarray:
    flags = np.concatenate(parts)
    if not np.isin(flags, (0, 1)).all():
        raise UserError(f"{path}: '{key}' holds values that are neither 0 nor 1.")
    return flags.astype(bool)
