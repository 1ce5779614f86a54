"""Reading arrays of numbers out of an HDF5 file that anybody may have made.

Nothing is followed that leads out of the file (external links, external storage, virtual data sets),
nothing is taken whose bytes aren't all in the file (holes, sizes that are only declared), and no types
but plain numbers are read. The HDF5 library itself is trusted with what passes these checks; see
`_check_heaps` for the one place where it isn't.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ablate.data.formats.base import DENSEST, Budget, one_line, printable
from ablate.errors import UserError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Built into the library: deflate, shuffle, fletcher32, szip, n-bit, scale-offset; h5py brings lzf.
FILTERS = {*range(1, 7), 32000}
NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)
LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


class Source:
    """An open HDF5 file; every method raises UserError, one line, for what it refuses or can't read.

    Goes through h5py's low-level interface, at a third of the cost: a Minari set has 100,000 arrays.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._root = file.id
        self._size = path.stat().st_size
        self._budget = Budget(path)
        self._heaps_checked = False
        self._last: tuple[str, Any] = ("", file.id)  # the group that was asked for last

    def take(self, size: int, what: str) -> None:
        """Counts memory that the caller is going to need; refuses what doesn't fit."""
        self._budget.take(size, what)

    def keys(self, group: str = "") -> list[str]:
        """Names at the top of the file or in a group, sorted; none where there is no such group."""
        with _readable(self.path):
            found = self._find(group) if group else self._root
            inside = found if isinstance(found, h5py.h5g.GroupID) else ()
            return sorted(name.decode("utf-8", "replace") for name in inside)

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Of the array at `key`; None where there is a group, an empty array or nothing. No link is followed."""
        with _readable(self.path):
            found = self._find(key)
            return found.shape if isinstance(found, h5py.h5d.DatasetID) else None

    def is_link(self, key: str) -> bool:
        """Whether `key`, which is there, leads somewhere else."""
        group, _, name = key.rpartition("/")
        with _readable(self.path):
            holder = self._find(group) if group else self._root
            return bool(holder.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD)

    def read(self, key: str) -> np.ndarray | None:
        """The array at `key` ("group/name"), in the file's own type; None when there is none.

        Bool, integer or float of at most 8 bytes, in this machine's byte order.
        """
        with _readable(self.path):
            found = self._find(key)
            if not isinstance(found, h5py.h5d.DatasetID):
                return None
            array = np.empty(self._check(key, found), dtype=found.dtype)
            if array.size:
                found.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise UserError(f"{self.path}: '{key}' holds truth values that are neither 0 nor 1.")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def attributes(self, group: str = "") -> dict[str, Any]:
        """Numbers, arrays of numbers and texts among the file's or a group's attributes, others left out."""
        read: dict[str, Any] = {}
        with _readable(self.path):
            holder = self._find(group) if group else self._root
            for index in range(h5py.h5a.get_num_attrs(holder)):
                found = h5py.h5a.open(holder, index=index)
                value = self._attribute(found)
                if value is not None:
                    read[found.name.decode("utf-8", "replace")] = value
        return read

    def _find(self, key: str) -> Any:
        """What hard links lead to, None where nothing stands."""
        group, _, name = key.rpartition("/")
        if group != self._last[0]:
            self._last = (group, self._find(group) if group else self._root)
        return self._step(self._last[1], key, name)

    def _step(self, group: Any, key: str, name: str) -> Any:
        if not isinstance(group, h5py.h5g.GroupID):
            return None
        encoded = name.encode()
        if not group.links.exists(encoded):
            return None
        if group.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
            raise UserError(f"{self.path}: '{key}' is a link; arrays must lie in the file itself.")
        return h5py.h5o.open(group, encoded)

    def _check(self, key: str, found: Any) -> tuple[int, ...]:
        """The shape; raises UserError unless it is an array of plain numbers that lie in this file."""

        def refuse(problem: str) -> UserError:
            return UserError(f"{self.path}: '{key}' {problem}.")

        kind, shape = found.get_type(), found.shape
        width = kind.get_size()
        if kind.get_class() not in NUMBERS or width > 8 or kind.dtype.kind not in "biuf":
            raise refuse("isn't of numbers (bool, integers or floats of at most 8 bytes)")
        if shape is None:
            raise refuse("is empty")
        plan = found.get_create_plist()
        layout = plan.get_layout()
        if layout not in LAYOUTS or plan.get_external_count():
            raise refuse("keeps its values outside this file")
        stored, count = found.get_storage_size(), math.prod(shape)
        if layout != h5py.h5d.CHUNKED:
            end = (found.get_offset() or 0) + stored
            held = stored == count * width and end <= self._size
            unpacked = 0
        else:
            chunk = plan.get_chunk()
            unpacked = math.prod(chunk) * width  # the library takes a chunk as a whole
            filters = [plan.get_filter(each)[0] for each in range(plan.get_nfilters())]
            if not FILTERS.issuperset(filters):
                raise refuse(f"needs HDF5 filter {next(f for f in filters if f not in FILTERS)}")
            wanted = math.prod(-(-rows // size) for rows, size in zip(shape, chunk, strict=True))
            held = stored <= self._size and wanted == found.get_num_chunks()
            held = held and wanted * unpacked <= DENSEST * stored
        if not held:
            raise refuse(
                f"declares {count * width:,} bytes in shape {shape}, which the file doesn't hold"
            )
        self._budget.take(max(unpacked, count * max(width, 4) * 2), f"'{key}'")
        return shape

    def _attribute(self, found: Any) -> Any:
        kind, shape = found.get_type(), found.shape
        text = kind.get_class() == h5py.h5t.STRING
        if not text and (kind.get_class() not in NUMBERS or kind.get_size() > 8):
            return None
        if shape is None or (text and shape):
            return None
        if math.prod(shape) and found.get_storage_size() > self._size:
            return None
        if text and kind.is_variable_str() and not self._heaps_checked:
            _check_heaps(self.path)
            self._heaps_checked = True
        value = np.empty(shape, dtype=kind.dtype)
        if value.size:
            found.read(value)
        if shape:
            return value
        plain = value.item()
        return plain.decode("utf-8", "replace") if isinstance(plain, bytes) else plain


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """An HDF5 file to read from.

    Raises UserError, one line, when the file is missing, isn't HDF5 or is damaged.
    """
    if not path.is_file():
        there = "is no file" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {there}.")
    with _readable(path):
        _check_superblock(path)
        file = h5py.File(path, "r")
    try:
        yield Source(path, file)
    finally:
        with contextlib.suppress(RuntimeError, OSError):  # of a damaged file; nothing is written
            file.close()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the library raises into a refusal; on damaged bytes that is nearly any type."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path}: can't be read as HDF5, it is damaged or incomplete ({one_line(error)})."
        ) from error


def _check_superblock(path: Path) -> None:
    """Offsets and lengths of 8 bytes, at the file's beginning, as every writer makes them."""
    with open(path, "rb") as file:
        head = file.read(16)
    at = 13 if head[8:9] in (b"\0", b"\1") else 9
    if head[:8] != SIGNATURE or head[at : at + 2] != b"\x08\x08":
        raise OSError("file signature not found")


def _check_heaps(path: Path) -> None:
    """Raises UserError when a heap of texts doesn't add up: HDF5 2.0 would read it forever.

    A collection is a header of 16 bytes (GCOL, version 1, its size) and objects, each a header of
    16 bytes (index, size at byte 8) and content padded to 8 bytes; object 0 is the free space, whose
    size counts its header. (HDF5 File Format Specification, III.E.)
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(b"GCOL\1")
        while start >= 0:
            size = int.from_bytes(data[start + 8 : start + 16], "little")
            end = start + size
            if size >= 4096 and end <= len(data):  # else the library refuses it itself
                at = start + 16
                while at + 16 <= end:
                    content = int.from_bytes(data[at + 8 : at + 16], "little")
                    free = data[at : at + 2] == b"\0\0"
                    step = content if free else 16 + -(-content // 8) * 8
                    if not 0 < step <= end - at:
                        raise UserError(f"{path}: its texts are damaged (heap at byte {start}).")
                    at += step
            start = data.find(b"GCOL\1", start + 1)


def shown(names: list[str], limit: int = 12) -> str:
    """Names from a file for a message, not all when there are many."""
    listed = ", ".join(printable(name, 40) for name in names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")
