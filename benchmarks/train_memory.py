"""
What training the paper's pairs of 7B takes on a GPU, computed from the sizes of their parts, activations not counted;
and, on a GPU, what it took in truth, with random weights of the same sizes.

    python -m benchmarks.train_memory --output results/train_memory.json
    python -m benchmarks.train_memory --measure "Qwen2.5-7B + Qwen2.5-0.5B" --output measured.json
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from building_semcot import decoder_layers
from semcot.data import load_problems
from semcot.files import write_json
from semcot.machine import device_name, versions
from semcot.training import TrainOptions, parse_options, train

ROOT = Path(__file__).resolve().parents[1]

SIZES = {
    "Llama-2-7B": ("llama", 32000, 4096, 11008, 32, 32, 32),
    "Sheared-LLaMA-1.3B": ("llama", 32000, 2048, 5504, 24, 16, 16),
    "Mistral-7B": ("mistral", 32000, 4096, 14336, 32, 32, 8),
    "mistral-1.1b": ("mistral", 32000, 2048, 5632, 22, 32, 4),
    "Qwen2.5-7B": ("qwen2", 152064, 3584, 18944, 28, 28, 4),
    "Qwen2.5-0.5B": ("qwen2", 152064, 896, 4864, 24, 14, 2),
    "tiny": ("llama", 2048, 32, 64, 4, 4, 2),
}
"""Family, vocabulary, width, width of the MLPs, layers, heads, heads of keys and values."""
PAIRS = {
    "Llama-2-7B + Sheared-LLaMA-1.3B": "llama2_7b.yaml",
    "Mistral-7B + mistral-1.1b": "mistral_7b.yaml",
    "Qwen2.5-7B + Qwen2.5-0.5B": "qwen2_5_7b.yaml",
}
"""The recipe of each."""
HALF, FULL = 2, 4
"""Bytes of a weight in bfloat16 and in float32."""


def config_of(name: str) -> PreTrainedConfig:
    family, vocabulary, width, mlp, layers, heads, key_value_heads = SIZES[name]
    return AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=name in ("Qwen2.5-0.5B", "tiny"),
    )


def computed(base_config: PreTrainedConfig, generator_config: PreTrainedConfig, encoder_layers: int) -> dict:
    """GB for each part, and in all while the generator, the encoder or the projection is trained."""
    with torch.device("meta"):
        base, generator = AutoModelForCausalLM.from_config(base_config), AutoModel.from_config(generator_config)
    layers = decoder_layers(base.base_model)
    frozen = HALF * sum(weight.numel() for weight in base.parameters())
    copied = sum(weight.numel() for weight in layers[:encoder_layers].parameters())
    encoder = FULL * copied
    trained = sum(weight.numel() for weight in generator.parameters())
    # Weights, gradients and Adam's two moments; adafactor's are rows and columns, next to nothing.
    adam, adafactor = 4 * FULL * trained, 2 * FULL * trained
    figures = {
        "base": frozen,
        "generator": adam,
        "encoder": encoder,
        "in all": frozen + adam + encoder,
        "adafactor": frozen + adafactor + encoder,
        "stage 1": frozen + 4 * encoder,
        "stage 1, adafactor": frozen + 2 * encoder,
        "warm-up": frozen + FULL * trained + encoder,
    }
    return {name: round(size / 1e9, 1) for name, size in figures.items()}


def own_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair encoding of 2,000 tokens, of the problems that are trained on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<eos>", "<pad>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(load_problems("synthetic_arithmetic", num_samples=500)["question"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def measured(base_config: PreTrainedConfig, generator_config: PreTrainedConfig, options: TrainOptions) -> dict:
    """Trains three steps of every phase on models of these sizes with random weights; GB at the peak of each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = own_tokenizer()
    for name, config in ((options.base_model, base_config), (options.generator, generator_config)):
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)
        del model
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    train(options)
    return json.loads((Path(options.output_dir) / "training.json").read_text())["peak_memory_gb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=[*PAIRS, "tiny + tiny"], help="train this pair on the present device")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = {"versions": versions("torch", "transformers")}
    if arguments.measure is None:
        result |= {"gb": {}}
        print("| " + " | ".join(["base + generator", *computed(config_of("tiny"), config_of("tiny"), 1)]) + " |")
        for pair, recipe in PAIRS.items():
            options = parse_options([str(ROOT / "configs" / recipe), "--output_dir", "-"])
            base, generator = (config_of(name) for name in pair.split(" + "))
            start, end = options.encoder_layers
            figures = computed(base, generator, end - start)
            result["gb"][pair] = figures
            print("| " + " | ".join([pair, *(f"{size:.1f}" for size in figures.values())]) + " |")
    else:
        base, generator = (config_of(name) for name in arguments.measure.split(" + "))
        recipe = PAIRS.get(arguments.measure, "multiarith_smollm2.yaml")
        with tempfile.TemporaryDirectory() as folder:
            flags = f"--output_dir {folder}/run --base_model {folder}/base --generator {folder}/generator"
            flags += " --dataset synthetic_arithmetic=200 --max_steps 3"
            options = parse_options([str(ROOT / "configs" / recipe), *flags.split()])
            start, end = options.encoder_layers or (0, 1)
            result |= {
                "pair": arguments.measure,
                "device": device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
                "batch_size": options.stages[-1].batch_size,
                "computed_gb": computed(base, generator, end - start),
                "peak_gb": measured(base, generator, options),
            }
        print(json.dumps(result, indent=2))
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
