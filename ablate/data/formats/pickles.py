"""The Decision Transformer's files: a pickled list of dicts of arrays, an episode each.

A pickle is a program. This reader runs it on a machine of its own that has lists, tuples, dicts,
numbers, texts and arrays, and nothing else: a name in the file is looked up in a small table, never
imported, and what it stands for is done here. So there is nothing that a file could call.

Keys are the Decision Transformer's (observations, next_observations, actions, rewards, terminals).
Ours carry `timeouts` and the optional arrays as further keys, and behind the pickle, where no reader
of pickles looks, a line of JSON with the content hash and what the set says of itself.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import mmap
import pickletools
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ablate.data.formats.base import (
    Budget,
    Contents,
    one_line,
    printable,
    refuse_changes,
    valid,
    whole,
)
from ablate.data.formats.rows import (
    PER_STEP,
    Rows,
    Several,
    Task,
    assemble,
    joined,
    missing,
    named,
    side_by_side,
)
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

GZIP = b"\x1f\x8b"
TRAILER = b"\n#ablate "
LONGEST_TRAILER = 1 << 20  # bytes
# A number alone takes at least one byte of a pickle and eight of memory; an array as much of both.
EXPANSION = 16
# Of a pickle's instructions, each of which takes a microsecond: what any file may have, and bytes of the
# file for each that is more. A list of numbers has 9 bytes a number, an array one instruction in all.
INSTRUCTIONS, BYTES_EACH = 1_000_000, 6
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
    with _opened(path) as data:
        episodes = _Machine(path, data).run()
        size, behind = _size(data), data.read(LONGEST_TRAILER)
    about = _trailer(path, behind)
    notes: list[str] = []
    expected, label = about.pop("content_hash", None), name or str(about["name"])
    if expected is not None:
        refuse_changes(path, reading)
        reading = Reading(terminals="as-is")
    rows = _rows(path, episodes, size, reading, notes)
    rows.scaled = expected is not None
    task = Task(reading, about.get("environment"))
    found = assemble(path, label, rows, reading, task, notes)
    if expected not in (None, found.content_hash):
        raise UserError(
            f"{path}: its content has changed since it was written (hash {found.content_hash},"
            f" expected {printable(str(expected))})."
        )
    return Contents(valid(path, found), about, notes)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The bytes of a pickle, unpacked where it is gzipped; what goes wrong inside is a refusal."""
    if not path.is_file():
        there = "is no file" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {there}.")
    try:
        with open(path, "rb") as file:
            if file.read(2) == GZIP:
                file.seek(0)
                left = Budget(path).left
                content = gzip.GzipFile(fileobj=file).read(left + 1)
                if len(content) > left:
                    Budget(path).take(len(content), "what it unpacks to")
                yield io.BytesIO(content)
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except (OSError, ValueError, EOFError, zlib.error) as error:  # an empty file can't be mapped
        raise UserError(
            f"{path}: can't be read as a pickle, it is damaged or incomplete ({one_line(error)})."
        ) from error


def _size(data: Any) -> int:
    return data.getbuffer().nbytes if isinstance(data, io.BytesIO) else len(data)


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
    for key in PER_STEP:
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

    def __init__(self, path: Path, data: Any) -> None:
        self._path = path
        self._data = data
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle holds; the file then stands behind its last instruction."""
        try:
            left = INSTRUCTIONS + _size(self._data) // BYTES_EACH
            for opcode, argument, _ in pickletools.genops(self._data):
                left -= 1
                if left < 0:
                    raise self._refusal("has more instructions than data of its size need")
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
            f"{self._path}: it {problem}; only arrays of numbers and plain containers are allowed. Write"
            " them so in the program that made it: np.savez(FILE, observations=..., actions=...,"
            " rewards=..., terminals=..., timeouts=...), a row a step."
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


def _rows(path: Path, found: Any, size: int, reading: Reading, notes: list[str]) -> Rows:
    """A list or a dict of episodes, each a dict of arrays or a list of steps; a list of steps; one dict of
    arrays of all steps, or of lists with an array an episode."""
    reader = _Arrays(path, size, reading, notes)
    if isinstance(found, dict):
        if found and all(isinstance(each, dict) for each in found.values()):
            found = list(found.values())
        else:
            return reader.whole(found)
    if not isinstance(found, list | tuple) or not found:
        raise UserError(f"{path}: it holds no list of episodes.")
    if isinstance(found[0], dict) and reader.is_step(found[0]):
        return Rows(reader.steps(f"{path}", found))
    parts: dict[str, list[np.ndarray]] = {}
    for episode, each in enumerate(found):
        where = f"{path}: episode {episode}"
        if isinstance(each, list | tuple) and each and isinstance(each[0], dict):
            arrays = reader.check(where, reader.steps(where, each))
        elif isinstance(each, dict):
            arrays = reader.read(where, each)
        else:
            raise UserError(f"{where} is no dict of arrays.")
        if parts and set(arrays) != set(parts):
            raise UserError(f"{where} has other arrays than the episodes before.")
        for key, array in arrays.items():
            parts.setdefault(key, []).append(array)
    return joined(path, parts)


class _Arrays:
    """Takes arrays by our names, and counts what they hold: a file may name one many times."""

    def __init__(self, path: Path, size: int, reading: Reading, notes: list[str]) -> None:
        self._path = path
        self._budget = Budget(path)
        self._left = EXPANSION * size + (1 << 20)
        self._reading, self._notes = reading, notes

    def is_step(self, found: dict[str, Any]) -> bool:
        """Whether a dict holds one step: its reward is a number."""
        value = named(self._path, found, self._reading, []).get("rewards")
        if isinstance(value, _Array) and value.value is not None:
            return value.value.ndim == 0
        return isinstance(value, bool | int | float | np.generic)

    def read(self, where: str, episode: dict[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of an episode, `rewards` and flags as (T,); others are left out."""
        taken = self._named(where, episode)
        return self.check(where, {key: self._one(where, key, each) for key, each in taken.items()})

    def steps(self, where: str, found: Sequence[Any]) -> dict[str, np.ndarray]:
        """The arrays of a list of steps, a dict each."""
        columns: dict[str, list[Any]] = {}
        for index, each in enumerate(found):
            if not isinstance(each, dict):
                raise UserError(f"{where}: step {index} is no dict.")
            taken = self._named(f"{where}: step {index}", each)
            if columns and set(taken) != set(columns):
                raise UserError(f"{where}: step {index} has other entries than those before.")
            for key, value in taken.items():
                columns.setdefault(key, []).append(value)
        return {key: self._stacked(where, key, values) for key, values in columns.items()}

    def _stacked(self, where: str, key: str, values: list[Any]) -> np.ndarray:
        if isinstance(values[0], Several):
            parts = [list(each) for each in zip(*values, strict=True)]
            return side_by_side(where, [self._array(f"{where}: '{key}'", each) for each in parts])
        return self._array(f"{where}: '{key}'", values)

    def whole(self, found: dict[str, Any]) -> Rows:
        """One dict for all: arrays of all steps, or lists with an array an episode."""
        where = f"{self._path}"
        taken = self._named(where, found)
        seen = taken["observations"]
        if isinstance(seen, list | tuple) and seen and self._is_episode(seen[0]):
            if any(not isinstance(v, list | tuple) or len(v) != len(seen) for v in taken.values()):
                raise UserError(
                    f"{where}: 'observations' has {len(seen)} episodes, others have not."
                )
            parts: dict[str, list[np.ndarray]] = {}
            for episode in range(len(seen)):
                each = {key: values[episode] for key, values in taken.items()}
                at = f"{where}: episode {episode}"
                arrays = {key: self._one(at, key, value) for key, value in each.items()}
                for key, array in self.check(at, arrays).items():
                    parts.setdefault(key, []).append(array)
            return joined(self._path, parts)
        if "terminals" not in taken and "timeouts" not in taken:
            raise missing(where, "terminals", list(found))
        return Rows(
            self.check(where, {key: self._one(where, key, each) for key, each in taken.items()})
        )

    def check(self, where: str, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same arrays, `rewards` and flags as (T,), a flag of the whole at its last row."""
        steps = len(found["rewards"]) if found["rewards"].ndim else 0
        for key in ("terminals", "timeouts"):
            if key in found and found[key].ndim == 0 and steps:
                found[key] = np.append(np.zeros(steps - 1, found[key].dtype), found[key])
        for key in ("rewards", "terminals", "timeouts"):
            if key in found and found[key].ndim == 2 and found[key].shape[1] == 1:
                found[key] = found[key][:, 0]
            if key in found and found[key].ndim != 1:
                raise UserError(f"{where}: '{key}' has shape {found[key].shape}; (T,) is needed.")
        if not steps or any(array.shape[:1] != (steps,) for array in found.values()):
            shapes = ", ".join(f"{key} {array.shape}" for key, array in found.items())
            raise UserError(f"{where}: the arrays differ in length or are empty: {shapes}.")
        return found

    def _named(self, where: str, found: dict[str, Any]) -> dict[str, Any]:
        taken = named(where, found, self._reading, self._notes)
        for key in ("observations", "actions", "rewards"):
            if key not in taken:
                raise missing(where, key, list(found))
        return taken

    @staticmethod
    def _is_episode(value: Any) -> bool:
        if isinstance(value, _Array) and value.value is not None:
            return value.value.ndim > 1
        return (
            isinstance(value, list | tuple)
            and bool(value)
            and (isinstance(value[0], list | tuple | _Array))
        )

    def _one(self, where: str, key: str, value: Any) -> np.ndarray:
        """An array; of several that `map` puts side by side, their columns."""
        what = f"{where}: '{key}'"
        if isinstance(value, Several):
            return side_by_side(what, [self._array(what, each) for each in value])
        return self._array(what, value)

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
