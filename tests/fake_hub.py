"""A model hub over HTTP on loopback: what the hub's own package asks for, and what goes wrong there."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

COMMIT = "4b1f" * 10
_LARGE = 1000  # bytes; from here on a file goes by its SHA-256, as what git LFS keeps does


@dataclass(kw_only=True)
class FakeHub:
    """What the hub holds and how it answers.

    Attributes:
        files: Content by model and file.
        gated: Models that only the tokens in `granted` may have.
        granted: Tokens of accounts that were granted access.
        tokens: Tokens that the hub knows; others are refused.
        status: Answered in place of anything else, for each of the next requests.
        headers: Sent with `status`.
        cut: A transfer ends after so many bytes, for each of the next ones.
        asked: Requests by method and path, and of ranges by their beginning.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    status: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)


@contextmanager
def serve_hub(hub: FakeHub, folder: Path, token: str | None = None) -> Iterator[FakeHub]:
    """Let the hub's package speak to this hub, with a cache and a login of its own, and wait for nothing.

    Args:
        hub: What is served.
        folder: Where the cache lies.
        token: Of the machine's login; None where there is none.
    """
    from huggingface_hub import constants

    handler = type("Handler", (_Handler,), {"hub": hub})
    sleep = time.sleep
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as patches:
        address = f"http://127.0.0.1:{server.server_port}"
        changes = {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_TOKEN_PATH": str(folder / "no-token"),
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "DOWNLOAD_CHUNK_SIZE": 1 << 16,
        }
        for name, value in changes.items():
            patches.enter_context(mock.patch.object(constants, name, value))
        patches.enter_context(mock.patch.dict("os.environ", {"HF_TOKEN": token or ""}))
        patches.enter_context(mock.patch.object(time, "sleep", lambda seconds: sleep(min(seconds, 0.001))))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer what a file is."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with a file, or whether it may be had."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.asked[f"{self.command} {self.path}"] += 1
        if self.hub.status:
            self._refuse(self.hub.status.pop(0), **self.hub.headers)
            return
        parts = self.path.strip("/").split("/")
        is_check = parts[:2] == ["api", "models"]
        hub_id = "/".join(parts[2:4] if is_check else parts[:2])
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token is not None and token not in self.hub.tokens:
            self._refuse(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
        elif hub_id not in self.hub.files:
            self._refuse(404 if token else 401, **{"X-Error-Code": "RepoNotFound"})
        elif hub_id in self.hub.gated and token not in self.hub.granted:
            self._refuse(403 if token else 401, **{"X-Error-Code": "GatedRepo"})
        elif is_check:
            self._refuse(200)
        elif parts[3] not in ("main", COMMIT):
            self._refuse(404, **{"X-Error-Code": "RevisionNotFound"})
        elif "/".join(parts[4:]) not in self.hub.files[hub_id]:
            self._refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._send(self.hub.files[hub_id]["/".join(parts[4:])], body=body)

    def _refuse(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, content: bytes, *, body: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.hub.asked["ranges"] += start > 0
        digest = hashlib.sha256(content) if len(content) >= _LARGE else _git_sha1(content)
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest.hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        rest = content[start:]
        if self.hub.cut:
            rest = rest[: self.hub.cut.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)


def _git_sha1(content: bytes) -> Any:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
