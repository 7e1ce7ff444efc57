"""
Runs a script under accelerate's FSDP or DeepSpeed on CPUs, for which accelerate has neither: everything else, the
spreading, the exchange between processes, the checkpoints, is what it is on GPUs.

    python -m torch.distributed.run --nproc_per_node 2 tests/engine_on_cpu.py SCRIPT [ARGUMENTS]
"""

import runpy
import sys
from pathlib import Path

from accelerate import state
from accelerate.utils import DistributedType

start_processes, start_accelerator = state.PartialState.__init__, state.AcceleratorState.__init__


def without_cpu(self, cpu: bool = False, **kwargs) -> None:
    start_processes(self, cpu=False, **kwargs)


def with_fsdp(self, *args, fsdp_plugin=None, **kwargs) -> None:
    start_accelerator(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin


state.PartialState.__init__ = without_cpu
state.PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
state.AcceleratorState.__init__ = with_fsdp

sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
