#!/usr/bin/env bash
# What only a GPU can tell. First, each alone: how fast stage 2 trains and at which share of the chip's matrix peak, on the
# default base and on random weights of the paper's 1.3B one; and how fast the checkpoint answers. Then, beside each other:
# the GPU tests, two equal runs and one under accelerate's launcher, and what a 7B pair takes of its memory (48 GB or more).
#
#   benchmarks/on_gpu.sh [FOLDER FOR THE LOGS [PART...]]      PYTHON=python of an environment with the package installed
#
# The parts are speed, speed_1b, answers, tests, runs and memory; all, where none is named. Where models/ has no base,
# one of its sizes with random weights stands in, and there are no answers; a Hub is never needed. Every part runs,
# whatever became of the others; it fails where one of them did.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
logs=${1:-runs/gpu}
all=" speed speed_1b answers tests runs memory "
parts=" ${*:2} "
[ $# -ge 2 ] || parts=$all
for name in $parts; do
    if [[ $all != *" $name "* ]]; then
        echo "There is no part $name; there are:$all" >&2
        exit 2
    fi
done
chosen() { [[ $parts == *" $1 "* ]]; }
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "$python finds no CUDA device." >&2
    exit 2
fi
mkdir -p "$logs"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

part() { # part SECONDS AT MOST, NAME, COMMAND...
    local limit=$1 name=$2 started=$SECONDS
    shift 2
    if timeout -k 10 "$limit" "$@" >"$logs/$name.txt" 2>&1; then echo "$name: done, $((SECONDS - started)) s"; else
        touch "$scratch/failed"
        echo "$name: FAILED after $((SECONDS - started)) s, see $logs/$name.txt"
        tail -n 15 "$logs/$name.txt"
    fi
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$logs/device.txt"
base=models/SmolLM2-135M-Instruct
if [ ! -f "$base/config.json" ]; then
    base=$scratch/SmolLM2-135M-random
    if chosen speed || chosen runs; then part 60 random_base "$python" -m benchmarks.random_base "$base"; fi
fi
if chosen speed; then
    part 300 speed "$python" -m benchmarks.train_throughput --device cuda --base_model "$base" --samples 2048 --steps 20 \
        --batch_sizes 16 32 64 128 --output "$logs/train_throughput.json"
fi
if chosen answers && [ "$base" = models/SmolLM2-135M-Instruct ]; then
    part 180 answers "$python" eval_semcot.py --model . --data synthetic_arithmetic --limit 500 --seed 6 \
        --batch_size 128 --output_dir "$logs/synthetic_arithmetic"
    part 120 latency "$python" -m benchmarks.latency --device cuda --dtype bfloat16 --questions 400 \
        --batch_sizes 1 16 128 --output "$logs/latency.json"
fi
if chosen speed_1b; then
    sizes=hidden_size=2048,intermediate_size=5504,num_hidden_layers=24
    sizes=$sizes,num_attention_heads=16,num_key_value_heads=16,head_dim=128
    part 60 random_base_1b "$python" -m benchmarks.random_base "$scratch/1b" "$sizes"
    part 180 speed_1b "$python" -m benchmarks.train_throughput --device cuda --base_model "$scratch/1b" \
        --generator_layers 2 --samples 1024 --steps 10 --batch_sizes 16 64 128 --output "$logs/train_throughput_1b.json"
fi

recipe="train_semcot.py --base_model $base --generator 8 --alpha 0 --max_steps 20 --trainer.logging_steps 1"
launch="-m accelerate.commands.launch --num_processes 1 --main_process_port 0 --config_file configs/accelerate/ddp.yaml"
workers=$("$python" -c "import xdist" 2>/dev/null && echo "-n 6")
if chosen tests; then
    part 240 tests "$python" -m pytest -v -m "not slow" -p no:cacheprovider $workers tests/test_gpu.py &
fi
if chosen memory; then
    part 240 memory "$python" -m benchmarks.train_memory --measure "Qwen2.5-7B + Qwen2.5-0.5B" \
        --output "$logs/train_memory.json" &
fi
if chosen runs; then
    part 240 run_plain "$python" $recipe --output_dir "$scratch/runs/plain" &
    part 240 run_again "$python" $recipe --output_dir "$scratch/runs/again" &
    part 240 run_ddp "$python" $launch $recipe --output_dir "$scratch/runs/ddp" &
fi
wait
if chosen runs; then
    (cd "$scratch/runs" && sha256sum ./*/model.safetensors) | tee "$logs/weights.txt"
    for run in plain again ddp; do
        cp "$scratch/runs/$run/stages/generator/losses.json" "$logs/losses_$run.json" 2>/dev/null
    done
fi
[ ! -e "$scratch/failed" ]
