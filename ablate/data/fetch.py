"""Bringing data sets here by name: D4RL's files over HTTP, Minari's through the `minari` package.

A file grows as `FILE.part` beside where it will lie, with what identifies its content on the server
(ETag or date) in `FILE.part.json`, and is renamed only once it is whole: whatever interrupts a
download, nothing half lies under the file's own name, and the next attempt goes on where it stopped
if the server still has the same content. Size and sha256 are checked where they are published (see
`d4rl_index`). Where they aren't, the file must open as HDF5, and the sha256 of what came is written
beside it as `FILE.sha256` (the format of `sha256sum`), so that a later change is noticed. A file
that is there already is never written to, renamed or deleted.

A server that brings too little, or never ends, is given up (LOWEST, DEADLINE, LARGEST), and one that points
elsewhere is followed to the hosts of the source only, encrypted.
"""

from __future__ import annotations

import contextlib
import email.message
import errno
import fcntl
import hashlib
import http.client
import importlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py

from ablate.data import d4rl_index
from ablate.errors import UserError, public

Progress = Callable[[int, int | None], None]

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # in a row that bring nothing
WAIT = 1.0  # seconds before the next attempt, twice as long before each further one
DEADLINE = 6 * 3600.0  # seconds until a download is given up
LOWEST = 1000.0  # bytes a second, on average over SPAN
SPAN = 60.0  # seconds
LARGEST = 1 << 34  # bytes of a file whose size isn't published
LOCAL = ("127.0.0.1", "localhost", "::1")
TRANSIENT = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Source:
    """A file to be had: its name in the folder, its address, and its size and sha256 where known.

    hosts: to which its server may point, besides itself.
    """

    file: str
    url: str
    size: int | None = None
    sha256: str | None = None
    hosts: tuple[str, ...] = ()


def fetch(
    name: str, folder: Path | None = None, progress: Progress = lambda done, total: None
) -> Path:
    """Brings the data set `d4rl/ID` (the prefix may be left out) or `minari/ID` here.

    folder: where to; None for where its readers look: $D4RL_DATASET_DIR or ~/.d4rl/datasets,
    $MINARI_DATASETS_PATH or ~/.minari/datasets.
    progress: told how many bytes are here and how many there are in all (None while not known), at
    least once a mebibyte; not for Minari, whose package prints its own.

    Returns the file (Minari: the data set's folder); does nothing when it is there and right. Raises
    UserError, one line, when the name isn't known, another file is in the way, the server can't be
    reached or doesn't have it, what came isn't it, or the disk is full. What has come by then, or by
    an interruption, is kept (not by Minari's package), and the same call goes on from there.
    """
    family, _, member = name.partition("/")
    if family == "minari":
        return _minari(member, folder)
    entry = d4rl_index.entry(name, "fetch")
    source = Source(entry.file, entry.url, entry.size, entry.sha256)
    return download(source, folder or d4rl_index.folder(), progress)


def download(source: Source, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Brings one file into `folder` (made if missing) as `fetch` describes; returns its path."""
    target = folder / source.file
    try:
        if present(target, source):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{source.file}.part"), target, progress) as part:
            if part is None:  # another process has finished it
                present(target, source)
            else:
                _Download(source, target, part, progress).run()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"{target}: the disk is full; what has come is kept. Make room and run it again."
            ) from error
        raise UserError(f"{target}: can't be written ({_one_line(error)}).") from error
    return target


def present(path: Path, source: Source) -> bool:
    """Whether the file is there. Raises UserError when something is there that isn't `source`."""
    if not path.exists():
        return False
    left = "It is left as it is; move it away to fetch it anew."
    if not path.is_file():
        raise UserError(f"{path}: a file is to be fetched to here, but this isn't a file. {left}")
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise UserError(f"{path}: has {size} bytes; the published file has {source.size}. {left}")
    expected, when = source.sha256, "the published file has"
    if expected is None:
        expected, when = _recorded(path), "when it was fetched it had"
    if expected is None:
        if problem := _no_hdf5(path):
            raise UserError(f"{path}: isn't a whole HDF5 file ({problem}). {left}")
    elif (found := _sha256(path)) != expected:
        raise UserError(f"{path}: has sha256 {found}; {when} {expected}. {left}")
    return True


class _Broken(Exception):
    """The connection failed in a way that may pass."""


class _Unreachable(_Broken):
    """There was no connection."""


class _Download:
    """One file on its way; `part` is its locked `FILE.part`."""

    def __init__(self, source: Source, target: Path, part: IO[bytes], progress: Progress) -> None:
        self.source, self.target, self.part, self.progress = source, target, part, progress
        self.note = target.with_name(f"{source.file}.part.json")
        self.pieced = self._size() > 0  # whether it is made of several answers
        self.url = public(source.url)

    def run(self) -> None:
        """Fill the part, verify it and give it its name."""
        _check_address(self.source, self.source.url)
        self._fill()
        problem = self._problem()
        if problem and self.pieced:  # perhaps the server's content changed in between
            self.part.truncate(0)
            self.pieced = False
            self._fill()
            problem = self._problem()
        if problem:
            rejected = self.target.with_name(f"{self.source.file}.rejected")
            os.replace(self.part.name, rejected)
            self.note.unlink(missing_ok=True)
            raise UserError(
                f"{self.url}: what came isn't the file that is wanted: {problem}. It is kept"
                f" as {rejected}."
            )
        os.fsync(self.part.fileno())
        if not present(self.target, self.source):
            if self.source.sha256 is None:
                digest = _sha256(Path(self.part.name))
                _write(_beside(self.target), f"{digest}  {self.source.file}\n")
            os.replace(self.part.name, self.target)
        self.note.unlink(missing_ok=True)

    def _fill(self) -> None:
        """Ask for what is missing, again as long as one of ATTEMPTS brings something."""
        with _Watch() as watch:
            self._attempts(watch)

    def _attempts(self, watch: _Watch) -> None:
        failed, connected, best = 0, False, self._size()
        while True:
            try:
                return self._transfer(watch)
            except _Broken as error:
                if watch.reason:
                    raise UserError(
                        f"{self.url}: is given up: {watch.reason}. {self._size()} bytes are here and kept:"
                        " run it again to go on."
                    ) from error
                unreachable = isinstance(error, _Unreachable)
                connected |= not unreachable
                failed = 0 if self._size() > best else failed + 1
                best = max(best, self._size())
                if failed == ATTEMPTS or not connected:
                    hint = " Is there a network?" if unreachable else ""
                    raise UserError(
                        f"{self.url}: can't be fetched ({error}).{hint} {self._size()} bytes"
                        " are here and kept: run it again to go on, or download it by other means"
                        f" and put it at {self.target}."
                    ) from error
            time.sleep(WAIT * 2 ** max(failed - 1, 0))

    def _transfer(self, watch: _Watch) -> None:
        """One request. Raises _Broken when less came than there is."""
        have, size = self._size(), self.source.size
        if have == size:
            return
        known = self._known() if size is None or have < size else {}
        headers = {"Accept-Encoding": "identity", "User-Agent": "ablate"}
        validator = known.get("etag") or known.get("modified")
        # With neither a validator nor a hash to check at the end, the halves might be of two files.
        asked = have if known and (validator or self.source.sha256) else 0
        if asked:
            headers["Range"] = f"bytes={asked}-"
            if validator:
                headers["If-Range"] = validator
        with self._open(headers, watch) as response:
            start, total = _extent(response, asked)
            identity = _identity(response, self.url, total)
            if start is None or (start and any(known.get(k, v) != v for k, v in identity.items())):
                self.part.truncate(0)
                raise _Broken("the server doesn't go on with the same file")
            if size is not None and total not in (None, size):
                raise UserError(
                    f"{self.url}: the server has {total} bytes; the published file has"
                    f" {size}: it isn't the same any more."
                )
            total = size if total is None else total
            if size is None:
                self._check_size(total or 0)
            self._check_room((total or start) - start)
            if start:
                self.pieced = True
            else:
                self.part.truncate(0)
                _write(self.note, json.dumps(identity))
            self.part.seek(start)
            done = start
            self.progress(done, total)
            for chunk in () if response.status == 416 else _chunks(response):
                self.part.write(chunk)
                self.part.flush()
                done += len(chunk)
                watch.came += len(chunk)
                self.progress(done, total)
                if size is None:
                    self._check_size(done)
                if total is not None and done > total:
                    break  # the verification says so
        if total is not None and done < total:
            raise _Broken(f"the connection ended after {done} of {total} bytes")
        if watch.reason:  # its connection was closed from here
            raise _Broken(watch.reason)

    def _check_size(self, size: int) -> None:
        if size > LARGEST:
            self.part.truncate(0)
            raise UserError(
                f"{self.url}: gives more than {LARGEST} bytes, the most of a file whose size isn't published;"
                " nothing of it is kept."
            )

    def _open(self, headers: dict[str, str], watch: _Watch) -> Any:
        url = self.url
        request = urllib.request.Request(self.source.url, headers=headers)
        try:
            return _opener(self.source, watch).open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return error
            if error.code in TRANSIENT:
                raise _Broken(f"the server answers {error.code} {error.reason}") from error
            raise UserError(
                f"{url}: the server answers {error.code} {error.reason}; download it by other means"
                f" and put it at {self.target}."
            ) from error
        except urllib.error.URLError as error:
            reason = error.reason
            text = _one_line(reason) if isinstance(reason, OSError) else str(reason)
            raise _Unreachable(text) from error
        except ValueError as error:
            raise UserError(f"{url}: points to what is no address ({_one_line(error)}).") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_one_line(error)) from error

    def _known(self) -> dict[str, Any]:
        """What identifies the content that the part holds; {} when that isn't known."""
        try:
            found = json.loads(self.note.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("url") == self.url else {}

    def _problem(self) -> str:
        """What is wrong with the filled part; "" when nothing is."""
        size, expected = self._size(), self.source.size
        if expected is not None and size != expected:
            return f"{size} bytes, {expected} are expected"
        if self.source.sha256 is None:
            return _no_hdf5(Path(self.part.name))
        found = _sha256(Path(self.part.name))
        return "" if found == self.source.sha256 else f"sha256 {found}, not {self.source.sha256}"

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise UserError(
                f"{self.target.parent}: {free} bytes are free on this disk; {needed} more are"
                f" needed for {self.source.file}."
            )

    def _size(self) -> int:
        return os.fstat(self.part.fileno()).st_size


class _Watch:
    """Ends a download that takes too long or brings too little, by shutting its connection; says why.

    A timeout wouldn't: a byte now and then puts it off for ever, also in the head of an answer.
    """

    def __init__(self) -> None:
        self.came = 0  # bytes
        self.reason = ""
        self._handles: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for each in self._handles:
            each.close()

    def connect(self, *args: Any, **options: Any) -> socket.socket:
        """A connection that can be shut from here, also after it has been encrypted."""
        made = socket.create_connection(*args, **options)
        self._handles.append(made.dup())
        return made

    def _run(self) -> None:
        began = mark = time.monotonic()
        before = 0
        while not self._over.wait(min(SPAN / 4, 1.0)):
            now = time.monotonic()
            if now - began > DEADLINE:
                self.reason = f"it isn't here after {DEADLINE / 3600:.2g} hours"
            elif now - mark >= SPAN:
                rate = (self.came - before) / (now - mark)
                if rate < LOWEST:
                    self.reason = f"it brings {rate:.3g} bytes a second, less than {LOWEST:g}"
                mark, before = now, self.came
            if self.reason:
                for each in self._handles:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)


def _check_address(source: Source, url: str) -> None:
    """Raises UserError for an address that `source` may not come from."""
    own, found = (urllib.parse.urlsplit(each) for each in (source.url, url))
    hosts = (own.hostname, *source.hosts)
    # What is published without encryption is asked for as it is published; nothing else is.
    schemes = ("http", "https") if found.hostname in LOCAL or url == source.url else ("https",)
    if not found.hostname or found.hostname not in hosts or found.scheme not in schemes:
        shown = ", ".join(f"{' or '.join(schemes)}://{each}" for each in hosts)
        points = "" if url == source.url else f" points to {public(url)}, which"
        raise UserError(f"{public(source.url)}:{points} isn't followed; allowed: {shown}.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server's pointer to where the source may come from."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: email.message.Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_address(self._source, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener(source: Source, watch: _Watch) -> urllib.request.OpenerDirector:
    """What asks for a source over HTTP and HTTPS, and nothing else."""

    class Plain(http.client.HTTPConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = watch.connect

    class Encrypted(http.client.HTTPSConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = watch.connect

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Encrypted, req)

    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        _Redirects(source),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        made.add_handler(handler)
    return made


def _extent(response: Any, asked: int) -> tuple[int | None, int | None]:
    """First byte of an answer (None: not the one asked for) and length of the whole file."""
    headers = response.headers
    if response.status == 200:
        length = headers.get("Content-Length")
        return 0, int(length) if length and length.isdigit() else None
    unit, _, span = headers.get("Content-Range", "").partition(" ")
    first, _, whole = span.partition("/")
    total = int(whole) if whole.isdigit() else None
    if response.status == 416:  # nothing is left to be had when all of it is here
        return asked if asked and asked == total else None, total
    begin = first.partition("-")[0]
    return asked if unit == "bytes" and begin == str(asked) else None, total


def _identity(response: Any, url: str, total: int | None) -> dict[str, Any]:
    """What says that content is the same; a weak ETag doesn't for a range (RFC 9110, 13.1.5)."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    strong = etag if etag and not etag.startswith("W/") else None
    found = {"url": url, "etag": strong, "modified": modified, "total": total}
    return {key: value for key, value in found.items() if value is not None}


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_one_line(error)) from error
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _locked(path: Path, target: Path, progress: Progress) -> Iterator[IO[bytes] | None]:
    """`path`, made if missing, open and locked against other processes.

    Waits while another process has it, telling how far that is; None when it has finished `target`.
    The system unlocks it when a process dies.
    """

    def make(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT, 0o644)

    while not target.exists():
        with open(path, "r+b", opener=make) as part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(os.fstat(part.fileno()).st_size, None)
                time.sleep(0.1)
                continue
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise  # else this file system has no locks: two processes are not kept apart
            # Another process may have renamed it before it was locked here.
            if path.exists() and os.path.samestat(os.fstat(part.fileno()), path.stat()):
                yield part
                return
    yield None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str | None:
    """The sha256 written when the file was fetched."""
    try:
        words = _beside(path).read_text("utf-8").split()
    except (OSError, ValueError):
        return None
    return words[0] if words else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_hdf5(path: Path) -> str:
    """Why a file isn't a whole HDF5 file; "" when it is."""
    try:
        h5py.File(path, "r", locking=False).close()
    except OSError as error:
        return f"it doesn't open as HDF5: {_one_line(error)}"
    return ""


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _minari(dataset_id: str, folder: Path | None) -> Path:
    """A Minari data set, fetched into a folder of its own and moved whole into the root.

    The package takes any folder of the data set's name for the whole set, an interrupted one too.
    """
    name = f"minari/{dataset_id}"
    if not dataset_id or any(part in ("", ".", "..") for part in dataset_id.split("/")):
        raise UserError(
            f"fetch: '{name}' is not a name; allowed: minari/ID, e.g. mujoco/hopper/medium-v0."
        )
    default = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    root = Path(folder or default)
    target = root / dataset_id
    if (target / "data").is_dir():
        return target
    try:
        package = importlib.import_module("minari")
    except ImportError as error:
        raise UserError(
            f"fetch: {name} needs the minari package; install it with `pip install 'minari[hf]'`."
        ) from error
    stage = None
    before = os.environ.get("MINARI_DATASETS_PATH")
    try:
        root.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".fetch-", dir=root))
        os.environ["MINARI_DATASETS_PATH"] = str(stage)
        package.download_dataset(dataset_id)
        if not (stage / dataset_id / "data").is_dir():
            raise UserError(f"fetch: {name}: the minari package brought nothing.")
        _move(stage, root)
    except (Exception, SystemExit) as error:  # of the package and of what it calls
        if isinstance(error, UserError):
            raise
        raise UserError(f"fetch: {name} can't be fetched ({_one_line(error)}).") from error
    finally:
        if before is None:
            os.environ.pop("MINARI_DATASETS_PATH", None)
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
    return target


def _move(stage: Path, root: Path) -> None:
    """Every data set of `stage` (a combined one brings its parts) and what says of namespaces."""
    sets = [path.parent for path in stage.rglob("data") if path.is_dir()]
    for path in [*sets, *stage.rglob("namespace_metadata.json")]:
        relative = path.relative_to(stage)
        hidden = any(part.startswith(".") for part in relative.parts)  # the package's own cache
        if not hidden and not (root / relative).exists():
            (root / relative).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, root / relative)
