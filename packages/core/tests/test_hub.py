"""Adapters and composites go to the hub and back; the hub is a server of this test that answers huggingface_hub."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weft.core import load_adapter
from weft.core.errors import CheckpointError
from weft.core.testing import tiny_backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Keeps the files of its repositories, path to content, and what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Requests)
        self.repositories = {}
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        self.server.asked.append(f"{self.command} {self.path}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            words = json.loads(body)
            name = "/".join(filter(None, (words.get("organization"), words["name"])))
            self.server.repositories.setdefault(name, {})
            return self.answer({"url": f"{self.server.address}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            names = [file["path"] for file in json.loads(body)["files"]]
            kept = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer({"files": kept})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[found[1]][line["value"]["path"]] = content
            url = f"{self.server.address}/{found[1]}/commit/{COMMIT}"
            return self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.absent("EntryNotFound")

    def do_GET(self):
        if found := re.fullmatch(r"/api/models/(.+?)/(revision|tree)/(\w+)(\?.*)?", self.path):
            files = self.server.repositories.get(found[1])
            if files is None:
                return self.absent("RepoNotFound")
            if found[2] == "tree":
                entries = [
                    {"type": "file", "path": path, "size": len(content), "oid": COMMIT}
                    for path, content in files.items()
                ]
                return self.answer(entries)
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": found[1], "sha": COMMIT, "private": False, "siblings": siblings})
        found = re.fullmatch(r"/(.+)/resolve/\w+/([^/?]+)", self.path)
        files = self.server.repositories.get(found[1], {}) if found else {}
        if found is None or found[2] not in files:
            return self.absent("EntryNotFound")
        return self.send(200, files[found[2]], {"ETag": f'"{found[2]}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET  # noqa: N815  (the name that the base class calls)

    def answer(self, words):
        self.send(200, json.dumps(words).encode(), {"Content-Type": "application/json"})

    def absent(self, code):
        self.send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "not here"})

    def send(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


SCRIPT = """
import sys
import pytest, torch
from weft.core import attach, load_adapter
from weft.core.composites import VisualSeq2Seq
from weft.core.errors import CheckpointError
from weft.core.testing import tiny_backbone

model, batch = tiny_backbone("visual_seq2seq")
print(model.push_to_hub("someone/composite"))
loaded = VisualSeq2Seq.from_pretrained("someone/composite").eval()
with torch.no_grad():
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)

method = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"}
method["train_full"] = ["visual_embedding"]
attach(model, method, ["vqa", "gqa"])
with torch.no_grad():
    for value in model.parameters():
        if value.requires_grad:
            value.add_(torch.randn_like(value) * 0.1)
model.push_to_hub("someone/adapter", commit_message="An adapter")
load_adapter(loaded, "someone/adapter", revision="main")
for task in ("vqa", "gqa"):
    with torch.no_grad(), model.route(task=task), loaded.route(task=task):
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
plain, _ = tiny_backbone("visual_seq2seq")
with pytest.raises(CheckpointError, match="the hub says: .*404"):
    load_adapter(plain, "someone/adaptr")
"""


@pytest.mark.slow
def test_composites_and_adapters_go_to_the_hub_and_come_back(hub, tmp_path):
    """In a process of its own, because huggingface_hub reads the address and its cache once."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "hf_test",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **settings, "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stderr}\n{hub.asked}"
    assert hub.repositories["someone/composite"].keys() >= {"config.json", "model.safetensors", "README.md"}
    sent = set(hub.repositories["someone/adapter"])
    assert sent == {"weft_config.json", "adapter_model.safetensors", "README.md"}


def test_a_name_that_is_no_folder_is_looked_up_and_the_hub_answers_why(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match=r"no folder runs/adaptr here, and the hub says: .* Check the name"
    ):
        load_adapter(model, "runs/adaptr")


def test_a_revision_of_a_folder_is_refused(tmp_path):
    model, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match="`revision` must go with a repository of the hub, but `path` is"
    ):
        load_adapter(model, tmp_path, revision="main")
