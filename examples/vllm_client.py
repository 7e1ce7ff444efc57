"""
Questions to a vLLM server that runs the base; the generator thinks here.

    python -m vllm.entrypoints.openai.api_server --model models/SmolLM2-135M-Instruct --enable-prompt-embeds
    python -m examples.vllm_client "Paige had 11 songs and deleted 9 of them. How many are left?"

The server needs neither this repository nor trust in remote code.
"""

import argparse

import openai
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot.evaluation.methods import SemCoT
from semcot.serving import encode_embeds, prompt_embeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--model", default=".", help="a SemCoT checkpoint")
    parser.add_argument("--base_url", default="http://localhost:8000/v1")
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(options.model, trust_remote_code=True)
    method = SemCoT(model, tokenizer)
    client = openai.OpenAI(base_url=options.base_url, api_key="none")
    served = client.models.list().data[0].id
    embeds = prompt_embeds(model, tokenizer, options.questions)
    response = client.completions.create(
        model=served,
        prompt=None,
        temperature=0,
        max_tokens=method.max_new_tokens,
        extra_body={
            "prompt_embeds": [encode_embeds(row) for row in embeds],
            "stop_token_ids": method.end_ids,
            "repetition_penalty": 1.0,  # else that of the base's generation_config.json
        },
    )
    for question, choice in zip(options.questions, sorted(response.choices, key=lambda c: c.index), strict=True):
        print(f"{question}\n  ->{choice.text}")


if __name__ == "__main__":
    main()
