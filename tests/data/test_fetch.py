"""Downloads: resumed, verified, interrupted, refused; against a server of our own."""

import errno
import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types

import h5py
import numpy as np
import pytest

from ablate.data import d4rl_index, fetch
from ablate.data.fetch import Source, download
from ablate.errors import UserError

BODY = np.random.default_rng(0).bytes(600_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` as every path; its attributes say how badly."""

    daemon_threads = True
    body = BODY
    ranges = True
    etag: str | None = '"one"'
    modified: str | None = None
    honest = True  # heeds If-Range
    cut: int | None = None  # bytes of the body after which the connection ends
    pause = 0.0  # seconds between pieces of 20 kB
    length: int | None = None  # what is claimed
    status: int | None = None
    chunked = False
    location: str | None = None  # what it points to
    trickle: str = ""  # of what it gives a byte now and then: "head" or "body"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str | None, str | None]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # the client went away

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/folder/a.hdf5"

    def source(self, **changes):
        known = {"file": "a.hdf5", "url": self.url, "size": len(BODY), "sha256": SHA}
        return Source(**{**known, **changes})


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        span, condition = self.headers["Range"], self.headers["If-Range"]
        server.asked.append((span, condition))
        if server.location is not None and not self.path.endswith("moved"):
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        if server.trickle == "head":
            self.slowly(b"HTTP/1.1 200 OK\r\n" + b"X" * 1000)
            return
        if server.status is not None:
            self.send_error(server.status)
            return
        start, total = 0, len(server.body)
        same = condition in (None, server.etag, server.modified) or not server.honest
        if span and server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", span)[1])
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        for key, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(key, value)
        if not server.chunked:
            self.send_header("Content-Length", str((server.length or total) - start))
        self.end_headers()
        if server.trickle:
            self.slowly(server.body)
            return
        end = total if server.cut is None else min(total, start + server.cut)
        for at in range(start, end, 20_000):
            self.wfile.write(server.body[at : min(at + 20_000, end)])
            time.sleep(server.pause)
        self.close_connection = True

    def slowly(self, content):
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.01)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "WAIT", 0.0)
    one = Server()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture
def body(server):
    """A whole HDF5 file, served where no size or sha256 is published."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["observations"] = np.random.default_rng(1).standard_normal((5000, 4))
    server.body = memory.getvalue()
    return server.body


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_progress_and_is_not_fetched_twice(server, tmp_path):
    told = []
    folder = tmp_path / "made" / "here"
    path = download(server.source(), folder, lambda *progress: told.append(progress))
    assert path == folder / "a.hdf5"
    assert path.read_bytes() == BODY
    assert names(folder) == ["a.hdf5"]
    assert told[0] == (0, len(BODY))
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    before = path.stat()
    assert download(server.source(), folder) == path
    assert len(server.asked) == 1
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("validator", ["etag", "modified", "none"])
def test_a_dropped_connection_is_resumed(server, tmp_path, validator):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.etag = '"one"' if validator == "etag" else 'W/"weak"'
    server.modified = date if validator == "modified" else None
    server.cut = 250_000
    path = download(server.source(), tmp_path)
    assert path.read_bytes() == BODY
    known = {"etag": '"one"', "modified": date, "none": None}[validator]
    assert server.asked == [(None, None), ("bytes=250000-", known), ("bytes=500000-", known)]


def test_without_validator_and_sha256_nothing_is_pieced_together(server, body, tmp_path):
    server.etag, server.cut = None, len(body) // 2
    with pytest.raises(UserError, match=r"connection ended after \d+ of \d+ bytes"):
        download(server.source(size=None, sha256=None), tmp_path)
    assert all(span is None for span, _ in server.asked)
    server.cut = None
    assert download(server.source(size=None, sha256=None), tmp_path).read_bytes() == body


def interrupted(server, folder, at=250_000, **changes):
    """Leaves a part of `at` bytes, as a process that died there."""

    class Died(BaseException):
        pass

    def stop(done, total):
        if done >= at:
            raise Died

    server.cut = at
    with pytest.raises(Died):
        download(server.source(**changes), folder, stop)
    server.cut = None
    server.asked.clear()
    assert names(folder) == ["a.hdf5.part", "a.hdf5.part.json"]


def test_content_that_changed_between_attempts_is_fetched_anew(server, tmp_path):
    other = np.random.default_rng(2).bytes(len(BODY))
    changed = {"sha256": hashlib.sha256(other).hexdigest()}
    # The server heeds If-Range; it doesn't, but shows another ETag; it shows nothing at all.
    for number, (etag, honest) in enumerate([('"two"', True), ('"two"', False), (None, False)]):
        folder = tmp_path / str(number)
        server.body, server.etag, server.honest = BODY, '"one"' if etag else None, honest
        interrupted(server, folder, **changed)
        server.body, server.etag = other, etag
        assert download(server.source(**changed), folder).read_bytes() == other
        assert server.asked[0][0] == "bytes=250000-"
        assert names(folder) == ["a.hdf5"]


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    interrupted(server, tmp_path)
    server.ranges = False
    assert download(server.source(), tmp_path).read_bytes() == BODY
    server.cut = 250_000  # and when it never gets further, that ends
    with pytest.raises(UserError, match="connection ended after 250000 of 600000 bytes"):
        download(server.source(file="b.hdf5"), tmp_path)
    assert "b.hdf5" not in names(tmp_path)


def test_a_part_that_is_complete_or_too_long(server, body, tmp_path):
    server.body = BODY
    interrupted(server, tmp_path, at=len(BODY))
    assert download(server.source(), tmp_path).read_bytes() == BODY
    assert server.asked == []  # nothing was missing but the name
    interrupted(server, tmp_path / "long")
    with open(tmp_path / "long" / "a.hdf5.part", "ab") as file:
        file.write(bytes(len(BODY)))
    assert download(server.source(), tmp_path / "long").read_bytes() == BODY
    server.body = body  # without a published size the server says that nothing is left
    interrupted(server, tmp_path / "end", at=len(body), size=None, sha256=None)
    assert download(server.source(size=None, sha256=None), tmp_path / "end").read_bytes() == body
    assert server.asked == [(f"bytes={len(body)}-", '"one"')]


def test_what_came_is_recorded_where_nothing_is_published(server, body, tmp_path):
    source = server.source(size=None, sha256=None)
    path = download(source, tmp_path)
    digest = hashlib.sha256(body).hexdigest()
    assert (tmp_path / "a.hdf5.sha256").read_text() == f"{digest}  a.hdf5\n"
    assert download(source, tmp_path) == path
    with open(path, "r+b") as file:
        file.seek(9000)
        file.write(b"altered")
    with pytest.raises(UserError, match="when it was fetched it had") as caught:
        download(source, tmp_path)
    assert digest in str(caught.value)
    (tmp_path / "a.hdf5.sha256").unlink()
    assert download(source, tmp_path) == path  # the user's own file: it is HDF5, more isn't known


WRONG = {
    "sha256": ({}, {"body": bytes(len(BODY))}, "what came isn't .*sha256 [0-9a-f]{64}, not"),
    "page": (
        {"size": None, "sha256": None},
        {"body": b"<html>Log in to the network</html>"},
        "doesn't open as HDF5",
    ),
    "endless": ({}, {"body": BODY + BODY, "chunked": True}, r"\d+ bytes, 600000 are expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_the_file_never_gets_its_name(server, tmp_path, case):
    known, served, message = WRONG[case]
    for key, value in served.items():
        setattr(server, key, value)
    with pytest.raises(UserError, match=message) as caught:
        download(server.source(**known), tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a.hdf5.rejected"]


def test_a_server_that_lies_about_the_length(server, body, tmp_path):
    server.body, server.length = BODY, len(BODY) + 1000
    with pytest.raises(UserError, match="has 601000 bytes; the published file has 600000"):
        download(server.source(), tmp_path)
    with pytest.raises(UserError, match="ended after 600000 of 601000 bytes"):
        download(server.source(size=None), tmp_path)
    server.body, server.length = body, len(body) - 1000  # HDF5 knows its own length
    with pytest.raises(UserError, match="doesn't open as HDF5"):
        download(server.source(size=None, sha256=None), tmp_path / "short")
    server.length, server.chunked = None, True  # none at all: until the connection ends
    told = []
    path = download(
        server.source(size=None, sha256=None), tmp_path / "none", lambda *p: told.append(p)
    )
    assert path.read_bytes() == body
    assert told[-1] == (len(body), None)


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (410, 1), (503, 4), (429, 4)])
def test_servers_that_say_no(server, tmp_path, status, requests):
    interrupted(server, tmp_path)
    server.status = status
    with pytest.raises(UserError, match=str(status)) as caught:
        download(server.source(), tmp_path)
    assert str(tmp_path / "a.hdf5") in str(caught.value)  # what to do by hand
    assert len(server.asked) == requests
    server.status = None
    assert download(server.source(), tmp_path).read_bytes() == BODY  # nothing was lost
    assert server.asked[-1][0] == "bytes=250000-"


def test_no_network(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"can't be fetched .* Is there a network") as caught:
        download(server.source(), tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"put it at .*a\.hdf5\."):
        download(server.source(url="http://no-such-host.invalid/a"), tmp_path)


def test_a_full_disk(server, tmp_path, monkeypatch):
    room = types.SimpleNamespace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(fetch.shutil, "disk_usage", lambda folder: room)
        with pytest.raises(UserError, match=r"1000 bytes are free .*; 600000 more are needed"):
            download(server.source(), tmp_path)
    chunks = fetch._chunks

    def fills(response):
        yield next(chunks(response))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_chunks", fills)
        with pytest.raises(UserError, match=r"disk is full; what has come is kept"):
            download(server.source(), tmp_path)
    server.asked.clear()
    assert download(server.source(), tmp_path).read_bytes() == BODY
    assert server.asked[0][0] is not None  # it went on
    with pytest.raises(UserError, match="can't be written"):
        download(server.source(), tmp_path / "a.hdf5" / "below a file")


def test_files_that_are_in_the_way_are_left_alone(server, tmp_path):
    path = tmp_path / "a.hdf5"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has 4 bytes; .*has 600000\. It is left as it is"):
        download(server.source(), tmp_path)
    with pytest.raises(UserError, match=f"has sha256 [0-9a-f]+; the published file has {SHA}"):
        download(server.source(size=None), tmp_path)
    with pytest.raises(UserError, match="isn't a whole HDF5 file"):
        download(server.source(size=None, sha256=None), tmp_path)
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="this isn't a file"):
        download(server.source(), tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_trickle_is_given_up_and_what_came_is_kept(server, tmp_path, monkeypatch, where):
    monkeypatch.setattr(fetch, "SPAN", 0.2)
    server.trickle = where
    with pytest.raises(
        UserError, match=r"is given up: it brings [\d.]+ bytes a second, less than 1000"
    ):
        download(server.source(), tmp_path)
    server.trickle = ""
    assert download(server.source(), tmp_path).read_bytes() == BODY
    assert (server.asked[-1][0] is None) == (where == "head")


def test_a_download_has_a_deadline(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SPAN", 0.2)
    monkeypatch.setattr(fetch, "DEADLINE", 0.3)
    monkeypatch.setattr(fetch, "LOWEST", 0.0)
    server.pause = 0.05
    with pytest.raises(UserError, match="is given up: it isn't here after"):
        download(server.source(), tmp_path)
    server.chunked = True  # nor is a part taken for the whole where no length is said
    with pytest.raises(UserError, match="is given up"):
        download(server.source(file="b.hdf5", size=None, sha256=None), tmp_path)
    assert "b.hdf5" not in names(tmp_path)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_a_published_size_has_a_cap(server, tmp_path, monkeypatch, chunked):
    monkeypatch.setattr(fetch, "LARGEST", 100_000)
    server.chunked = chunked
    with pytest.raises(UserError, match="gives more than 100000 bytes"):
        download(server.source(size=None, sha256=None), tmp_path)
    assert (tmp_path / "a.hdf5.part").stat().st_size == 0
    assert download(server.source(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    "location",
    ["http://example.org/a?token=secret", "https://example.org/a", "ftp://127.0.0.1/a", "file:///etc/passwd",
     "http://[bad/a", "//example.org/a", "http://rail.eecs.berkeley.edu/a"],
)  # fmt: skip
def test_a_pointer_elsewhere_is_not_followed(server, tmp_path, location):
    server.location = location
    hosts = ("rail.eecs.berkeley.edu",)  # which would have to be encrypted
    with pytest.raises(UserError) as caught:
        download(server.source(hosts=hosts), tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_pointer_within_the_hosts_is_followed(server, tmp_path):
    server.location = "/moved"
    assert download(server.source(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,text"])
def test_only_http_is_spoken(server, tmp_path, url):
    with pytest.raises(UserError, match=r"isn't followed; allowed: http or https://"):
        download(server.source(url=url), tmp_path)


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from ablate.data.fetch import Source, download
    url, size, sha, folder = sys.argv[1:]
    print(download(Source("a.hdf5", url, int(size), sha), Path(folder)), flush=True)
    """
)


def child(server, folder):
    command = [sys.executable, "-c", CHILD, server.url, str(len(BODY)), SHA, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_download_is_resumed(server, tmp_path):
    server.pause = 0.03
    process = child(server, tmp_path)
    part = tmp_path / "a.hdf5.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 100_000):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    came = part.stat().st_size
    assert 100_000 < came < len(BODY)
    assert names(tmp_path) == ["a.hdf5.part", "a.hdf5.part.json"]
    server.pause = 0.0
    server.asked.clear()
    path = download(server.source(), tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA
    assert server.asked == [(f"bytes={came}-", '"one"')]
    assert names(tmp_path) == ["a.hdf5"]


def test_two_processes_at_once_fetch_it_once(server, tmp_path):
    server.pause = 0.03
    process = child(server, tmp_path)
    while not server.asked:
        time.sleep(0.01)
    told = []
    path = download(server.source(), tmp_path, lambda *progress: told.append(progress))
    out, _ = process.communicate()
    assert (process.returncode, out.strip()) == (0, str(path))
    assert len(server.asked) == 1  # the second waited
    assert told
    assert path.read_bytes() == BODY
    assert names(tmp_path) == ["a.hdf5"]


def test_by_name(server, tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(d4rl_index, "BASE", server.url + "/")
    known = {**d4rl_index.entries()}
    old = known["door-human-v1"]
    known["door-human-v1"] = d4rl_index.Entry(**{**vars(old), "size": len(BODY), "sha256": SHA})
    monkeypatch.setattr(d4rl_index, "entries", lambda: known)
    for name in ("d4rl/door-human-v1", "door-human-v1"):
        path = fetch.fetch(name)
        assert path == tmp_path / "data" / "door-human-v1.hdf5"
        assert path.read_bytes() == BODY
    assert len(server.asked) == 1
    assert fetch.fetch("door-human-v1", tmp_path / "elsewhere").parent == tmp_path / "elsewhere"
    with pytest.raises(UserError, match=r"fetch: 'd4rl/dor-human-v1' .*mean 'd4rl/door-human-v1'"):
        fetch.fetch("dor-human-v1")


def test_minari_sets_come_through_its_package_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r"minari/D4RL/door/human-v2 needs .*pip install 'minari"):
        fetch.fetch("minari/D4RL/door/human-v2")
    problem = None

    def download_dataset(dataset_id):
        root = os.environ["MINARI_DATASETS_PATH"]
        for each in (dataset_id, "D4RL/door/part-v0", "D4RL/.cache/human-v2"):
            os.makedirs(f"{root}/{each}/data")
        with open(f"{root}/D4RL/namespace_metadata.json", "w") as file:
            file.write("{}")
        if problem is not None:
            raise problem
        with open(f"{root}/{dataset_id}/data/main_data.hdf5", "wb") as file:
            file.write(b"content")

    package = types.SimpleNamespace(download_dataset=download_dataset)
    monkeypatch.setitem(sys.modules, "minari", package)
    problem = ValueError("Couldn't find any\nversion")
    with pytest.raises(UserError, match=r"can't be fetched \(Couldn't find any version\)"):
        fetch.fetch("minari/D4RL/door/human-v2")
    problem = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("minari/D4RL/door/human-v2")
    assert names(tmp_path / "root") == []
    problem = None
    path = fetch.fetch("minari/D4RL/door/human-v2")
    assert path == tmp_path / "root" / "D4RL" / "door" / "human-v2"
    assert (path / "data" / "main_data.hdf5").read_bytes() == b"content"
    assert names(tmp_path / "root") == ["D4RL"]
    assert names(tmp_path / "root" / "D4RL") == ["door", "namespace_metadata.json"]
    assert names(tmp_path / "root" / "D4RL" / "door") == ["human-v2", "part-v0"]
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path / "root")
    problem = AssertionError("not asked again")
    assert fetch.fetch("minari/D4RL/door/human-v2") == path
    package.download_dataset = lambda dataset_id: None
    with pytest.raises(UserError, match="brought nothing"):
        fetch.fetch("minari/other-v0")
    for bad in ("minari/", "minari/../up", "minari//a"):
        with pytest.raises(UserError, match="is not a name"):
            fetch.fetch(bad)
