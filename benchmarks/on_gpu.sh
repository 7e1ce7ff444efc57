#!/usr/bin/env bash
# What only a GPU can tell: how fast stage 2 trains and at which share of the chip's matrix peak; then, beside each other,
# the GPU tests, accelerate's engines with one process, and what a 7B pair takes of its memory (48 GB or more).
#
#   benchmarks/on_gpu.sh [FOLDER FOR THE LOGS]      PYTHON=python of an environment with requirements.txt
#
# Needs neither the base nor the Hub: where models/ has no base, one of its sizes with random weights stands in. Every part
# runs, whatever became of the others; it fails where one of them did. Compiled training, a slow test, is left to the
# measurement of the speed, which compares its losses too.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
logs=${1:-results/gpu}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "$python finds no CUDA device." >&2
    exit 2
fi
mkdir -p "$logs"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

limit=300 # seconds for each part: with those beside each other, all ends within ten minutes where the base is there
part() { # part NAME COMMAND...
    local name=$1 started=$SECONDS
    shift
    if timeout -k 10 "$limit" "$@" >"$logs/$name.txt" 2>&1; then echo "$name: done, $((SECONDS - started)) s"; else
        touch "$scratch/failed"
        echo "$name: FAILED, see $logs/$name.txt"
        tail -n 15 "$logs/$name.txt"
    fi
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$logs/device.txt"
base=models/SmolLM2-135M-Instruct
if [ ! -f "$base/config.json" ]; then
    base=$scratch/SmolLM2-135M-random
    part random_base "$python" benchmarks/random_base.py "$base"
fi
part throughput "$python" benchmarks/train_throughput.py --device cuda --base_model "$base" --samples 2048 --steps 20 \
    --batch_sizes 16 32 64 128 --torch_compile --output "$logs/train_throughput.json"

limit=240
recipe="train_semcot.py configs/quickstart.yaml --base_model $base --max_steps 20 --num_samples 2000 200"
recipe="$recipe --logging_steps 1 --output_dir $scratch"
launch="-m accelerate.commands.launch --num_processes 1 --main_process_port 0 --config_file configs/accelerate"
workers=$("$python" -c "import xdist" 2>/dev/null && echo "-n 6")
part tests "$python" -m pytest -v -m "not slow" -p no:cacheprovider $workers tests/test_gpu.py &
part memory "$python" benchmarks/train_memory.py --measure "Qwen2.5-7B + Qwen2.5-0.5B" --output "$logs/train_memory.json" &
part run_plain "$python" $recipe/plain &
part run_again "$python" $recipe/again &
part run_ddp "$python" $launch/ddp.yaml $recipe/ddp &
part run_fsdp "$python" $launch/fsdp.yaml $recipe/fsdp &
if "$python" -c "import deepspeed" 2>/dev/null; then part run_zero2 "$python" $launch/zero2.yaml $recipe/zero2 & fi
wait
(cd "$scratch" && sha256sum ./*/model.safetensors) | tee "$logs/weights.txt"
for run in plain again ddp fsdp zero2; do
    cp "$scratch/$run/phases/generator/losses.json" "$logs/losses_$run.json" 2>/dev/null
done
[ ! -e "$scratch/failed" ]
