"""Generate text with compiled calls, and start another generator from the file.

The model has random weights, since nothing is downloaded; with a checkpoint it is the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hotstart.integrations.transformers import compile_generator, load_generator


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=4,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=256,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    generator = compile_generator(model, max_length=64, max_prompt=32)
    print(generator.program)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "llama.hot")
        generator.save(file)
        generator = load_generator(file, model)

    prompt = torch.randint(3, 256, (1, 9))
    tokens = generator.generate(prompt, max_new_tokens=32, do_sample=False)
    expected = model.generate(prompt, max_new_tokens=32, do_sample=False)
    print("the same tokens as the model itself:", torch.equal(tokens, expected))


if __name__ == "__main__":
    main()
