"""Servers that send without end, or not at all; addresses inside a checkpoint."""

import http.server
import json
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.checkpoint.http import patience
from gti_diag.errors import InputError


class Endless(http.server.BaseHTTPRequestHandler):
    """206 and bytes for ever, or silence where the path says so; what was asked for is kept."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self):
        self.asked.append(self.path)
        if "silent" in self.path:
            time.sleep(3)
        self.send_response(200 if self.path.endswith("model.safetensors") else 404)
        self.send_header("Content-Length", "1000000" if self.path.endswith("model.safetensors") else "0")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self):
        self.asked.append(self.path)
        if "silent" in self.path:
            time.sleep(3)
        self.send_response(206)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Endless.asked.clear()
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def test_no_more_is_taken_than_was_asked_for(server):
    with pytest.raises(InputError, match="sends more than the 8 bytes that were asked for"):
        open_checkpoint(f"{server}/m/model.safetensors")


def test_a_silent_server_is_told_and_how_to_wait_longer(server, monkeypatch):
    monkeypatch.setenv("GTI_TIMEOUT", "0.3")
    with pytest.raises(InputError, match=r"does not answer within 0\.3 s.*GTI_TIMEOUT=SECONDS"):
        open_checkpoint(f"{server}/silent")
    assert len(Endless.asked) <= 8  # it was not waited for again and again


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf", "0", ""])
def test_a_time_limit_is_a_number_of_seconds(monkeypatch, seconds):
    monkeypatch.setenv("GTI_TIMEOUT", seconds)
    with pytest.raises(InputError, match="is no number of seconds"):
        patience()


@pytest.mark.parametrize("named", ["{server}/m", "simplecache::{server}/m", "ftp://h/m", "file:///etc", "HTTP://h/m"])
def test_an_address_inside_a_checkpoint_is_not_followed(server, tmp_path, named):
    rows = torch.ones(2, 4)
    save_file({"base_model.model.model.embed_tokens.lora_embedding_A": rows}, tmp_path / "adapter_model.safetensors")
    config = {"base_model_name_or_path": named.format(server=server), "r": 2, "lora_alpha": 2, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"by the address .* which is not followed from inside a checkpoint; give .*--base"
    ):
        open_checkpoint(tmp_path)
    assert not Endless.asked
