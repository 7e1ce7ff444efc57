#!/usr/bin/env bash
# What only a GPU can tell: the GPU tests, how fast stage 2 trains and at which share of the chip's matrix peak, what a 7B
# pair takes of its memory (a GPU of 48 GB or more), and accelerate's engines on it.
#
#   benchmarks/on_gpu.sh [FOLDER FOR THE LOGS]      PYTHON=python of an environment with requirements.txt
#
# Every part runs, whatever became of those before it; it fails where one of them did.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
logs=${1:-results/gpu}
failed=0
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$logs"

part() { # part NAME COMMAND...
    local name=$1 started=$SECONDS
    shift
    if "$@" >"$logs/$name.txt" 2>&1; then echo "$name: done, $((SECONDS - started)) s"; else
        failed=1
        echo "$name: FAILED, see $logs/$name.txt"
        tail -n 15 "$logs/$name.txt"
    fi
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$logs/device.txt"
part tests "$python" -m pytest -q -p no:cacheprovider tests/test_gpu.py
part throughput "$python" benchmarks/train_throughput.py --device cuda --samples 1024 --batch_sizes 1 16 32 64 \
    --output "$logs/train_throughput.json"
for engine in ddp fsdp zero2; do
    if [ "$engine" = zero2 ] && ! "$python" -c "import deepspeed" 2>/dev/null; then continue; fi
    folder=$(mktemp -d)
    part "engine_$engine" "$python" -m accelerate.commands.launch --config_file "configs/accelerate/$engine.yaml" \
        --num_processes 1 train_semcot.py configs/quickstart.yaml --output_dir "$folder/run" --max_steps 20 \
        --num_samples 2000 200 --logging_steps 5
    rm -rf "$folder"
done
part memory "$python" benchmarks/train_memory.py --measure "Qwen2.5-7B + Qwen2.5-0.5B" --output "$logs/train_memory.json"
exit $failed
