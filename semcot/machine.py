"""What a run's figures depend on besides model and data, and what it took of it."""

import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name, or the kind of device where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else platform.processor() or "cpu"


def dtype_named(name: str) -> torch.dtype:
    """PyTorch's floating dtype of this name. Raises `ValueError` where there is none."""
    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize > 1):
        raise ValueError(f"dtype {name!r} is none of PyTorch's for weights: give float32, bfloat16 or float16.")
    return dtype


def without_cudnn_attention() -> None:
    """
    Leaves cuDNN's attention out, which newer GPUs are given first: it makes a plan for every new shape of a batch, and
    so for most batches of texts. Of the whole process.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of the packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def peak_memory(device: torch.device, restart: bool = False) -> int:
    """
    Bytes: the most that this process took so far, of the GPU's memory on a GPU, else of the machine's. `restart` has
    the next call tell of what comes after this one alone; of the machine's memory that cannot be told.
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        if restart:
            torch.cuda.reset_peak_memory_stats(device)
        return peak
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
