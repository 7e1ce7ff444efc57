"""A loopback server that speaks the part of the Hub's API that pushing and loading a model uses.

Repositories live in memory as commits and branches. Answers and errors are those that huggingface_hub expects of the
real Hub; a request outside this part gets 501 and is kept in `HubServer.unknown`, so that a test can see it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import RLock, Thread
from typing import Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
LFS_SUFFIXES = {".safetensors", ".bin", ".gguf"}
REPO = "(?P<repo>[^/]+/[^/]+)"


class Repository:
    """Commits (sha -> path -> content) and branches (name -> sha) of one model repository."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit("main", {})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Put a commit holding exactly `files` at the head of the branch; return its 40-digit sha."""
        digest = hashlib.sha1(f"{branch} {len(self.commits)}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        self.branches[branch] = digest.hexdigest()
        self.commits[self.branches[branch]] = files
        return self.branches[branch]

    def resolve(self, revision: str) -> str | None:
        """The sha that a branch's name or a sha stands for; None when there is no such revision."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class HubError(Exception):
    """An answer of the Hub's other than success: HTTP status, `X-Error-Code`, message and further fields."""

    def __init__(self, status: int, code: str, message: str, **fields: str) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **fields}


class HubServer(ThreadingHTTPServer):
    """Serves from a free port of 127.0.0.1 for the duration of a `with` block."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.private: set[str] = set()
        self.lfs: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.lock = RLock()

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that make a fresh process take this server for the Hub, with `home` as its only cache."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Contents by path of a repository's revision; raises `HubError` as the Hub would answer."""
        repository = self.repository(repo)
        sha = repository.resolve(revision)
        if sha is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository.commits[sha]

    def repository(self, repo: str) -> Repository:
        if repo not in self.repositories:
            raise HubError(404, "RepoNotFound", f"Repository not found: {repo}")
        return self.repositories[repo]

    # One method for each kind of request: the body and the parts of the path in, JSON out.

    def whoami(self, _: bytes) -> dict:
        return {"type": "user", "name": "loopback", "orgs": []}

    def create_repo(self, body: bytes) -> dict:
        options = json.loads(body)
        repo = f"{options.get('organization') or 'loopback'}/{options['name']}"
        address = {"url": f"{self.url}/{repo}", "id": repo, "name": repo}
        if repo in self.repositories:
            raise HubError(409, "", "You already created this model repo", **address)
        self.repositories[repo] = Repository()
        if options.get("private") or options.get("visibility") == "private":
            self.private.add(repo)
        return address

    def validate_yaml(self, _: bytes) -> dict:
        return {"errors": [], "warnings": []}

    def create_branch(self, body: bytes, repo: str, branch: str) -> dict:
        repository = self.repository(repo)
        if branch in repository.branches:
            raise HubError(409, "", f"Reference already exists: {branch}")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        self.files(repo, start)
        repository.branches[branch] = repository.resolve(start)
        return {}

    def preupload(self, body: bytes, repo: str, revision: str) -> dict:
        self.files(repo, revision)
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if PurePosixPath(path).suffix in LFS_SUFFIXES else "regular" for path in paths}
        return {"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]}

    def lfs_batch(self, body: bytes, repo: str) -> dict:
        self.repository(repo)
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.lfs:
                item["actions"] = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def put_lfs(self, body: bytes, oid: str) -> dict:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubError(400, "", "The content has another sha256 than its name")
        self.lfs[oid] = body
        return {}

    def commit(self, body: bytes, repo: str, revision: str) -> dict:
        files = dict(self.files(repo, revision))
        for line in body.splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.lfs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key != "header":
                raise HubError(501, "", f"commit operation {key} is not served here")
        sha = self.repository(repo).commit(revision, files)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{repo}/commit/{sha}", "hookOutput": ""}

    def model_info(self, _: bytes, repo: str, revision: str = "main") -> dict:
        files = self.files(repo, revision)
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
        return {
            "_id": repo,
            "id": repo,
            "modelId": repo,
            "sha": self.repository(repo).resolve(revision),
            "private": repo in self.private,
            "siblings": siblings,
            "tags": [],
        }

    def refs(self, _: bytes, repo: str) -> dict:
        heads = self.repository(repo).branches.items()
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in heads]
        return {"branches": branches, "converts": [], "tags": []}

    def tree(self, _: bytes, repo: str, revision: str, folder: str = "") -> list[dict]:
        files = {path: content for path, content in self.files(repo, revision).items() if path.startswith(folder)}
        if not files and folder:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        return [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in files.items()
        ]

    def file(self, _: bytes, repo: str, revision: str, path: str) -> tuple[bytes, dict[str, str]]:
        files = self.files(repo, revision)
        if path not in files:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}")
        etag = hashlib.sha256(files[path]).hexdigest()
        return files[path], {"ETag": f'"{etag}"', "X-Repo-Commit": self.repository(repo).resolve(revision)}


ROUTES = [
    ("GET", "/api/whoami-v2", HubServer.whoami),
    ("POST", "/api/repos/create", HubServer.create_repo),
    ("POST", "/api/validate-yaml", HubServer.validate_yaml),
    ("POST", f"/api/models/{REPO}/branch/(?P<branch>[^/]+)", HubServer.create_branch),
    ("POST", f"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", HubServer.preupload),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", HubServer.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", HubServer.put_lfs),
    ("POST", f"/api/models/{REPO}/commit/(?P<revision>[^/]+)", HubServer.commit),
    ("GET", f"/api/models/{REPO}", HubServer.model_info),
    ("GET", f"/api/models/{REPO}/revision/(?P<revision>[^/]+)", HubServer.model_info),
    ("GET", f"/api/models/{REPO}/refs", HubServer.refs),
    ("GET", f"/api/models/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", HubServer.tree),
    ("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer.file),
]


class Handler(BaseHTTPRequestHandler):
    """Finds the method for a request in `ROUTES` and writes what it returns, or the error it raises."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def handle_request(self) -> None:
        body = self.read_body()  # always: an unread body would be taken for the connection's next request
        try:
            answer = self.answer(body)
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            self.reply(error.status, json.dumps(error.body).encode(), headers)
        else:
            content, headers = answer if isinstance(answer, tuple) else (json.dumps(answer).encode(), {})
            self.reply(200, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def answer(self, body: bytes) -> object:
        path = urlsplit(self.path).path
        method = "GET" if self.command == "HEAD" else self.command
        if method == "POST" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            raise HubError(401, "", "Invalid credentials")
        for verb, pattern, action in ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                parts = {name: unquote(part) for name, part in match.groupdict().items() if part is not None}
                with self.server.lock:
                    return action(self.server, body, **parts)
        self.server.unknown.append(f"{self.command} {self.path}")
        raise HubError(501, "", f"{self.command} {self.path} is not served here")

    def read_body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """A line for each request would only bury a test's own output."""
