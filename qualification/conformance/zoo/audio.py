"""Models that hear: encoders of speech, codecs, classifiers of sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn

from hotstart import Dim
from qualification.conformance.zoo.entry import Entry, Sizes
from qualification.conformance.zoo.seeded import seeded

BATCH = Dim("batch", min=1, max=4)
SAMPLES = Dim("samples", min=400, max=1600)
LAYERS = 4
EXAMPLE: Sizes = {"batch": 2, "samples": 800}
SPEECH: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 32,
    "conv_dim": (16, 16, 32),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def wav2vec2(layers: int) -> nn.Module:
    return transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(**SPEECH, num_hidden_layers=layers)
    )


def hubert(layers: int) -> nn.Module:
    return transformers.HubertModel(
        transformers.HubertConfig(
            **SPEECH,
            num_hidden_layers=layers,
            do_stable_layer_norm=True,
            feat_extract_norm="layer",
        )
    )


def wavlm(layers: int) -> nn.Module:
    return transformers.WavLMModel(transformers.WavLMConfig(**SPEECH, num_hidden_layers=layers))


def spectrogram_transformer(layers: int) -> nn.Module:
    return transformers.ASTForAudioClassification(
        transformers.ASTConfig(
            hidden_size=64,
            num_attention_heads=4,
            intermediate_size=128,
            num_hidden_layers=layers,
            patch_size=8,
            frequency_stride=6,
            time_stride=6,
            max_length=64,
            num_mel_bins=32,
            num_labels=10,
        )
    )


class OobleckEncoder(nn.Module):
    """Waveform to the distribution of latents."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = oobleck()

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor]:
        found = self.codec.encode(input_values).latent_dist
        return found.mean, found.std


class OobleckDecoder(nn.Module):
    """Latents to waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = oobleck()

    def forward(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents, return_dict=False)[0]


def oobleck() -> nn.Module:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4, 4],
        channel_multiples=[1, 2, 4],
        decoder_channels=8,
        decoder_input_channels=16,
        audio_channels=1,
    )


def dac() -> nn.Module:
    return transformers.DacModel(
        transformers.DacConfig(
            encoder_hidden_size=8,
            decoder_hidden_size=64,
            downsampling_ratios=[2, 4, 4],
            n_codebooks=4,
            codebook_size=64,
        )
    )


def hifi_gan() -> nn.Module:
    return transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=16,
            upsample_initial_channel=32,
            upsample_rates=[4, 2],
            upsample_kernel_sizes=[8, 4],
            resblock_kernel_sizes=[3, 5],
            resblock_dilation_sizes=[[1, 3], [1, 3]],
        )
    )


def encodec() -> nn.Module:
    return transformers.EncodecModel(
        transformers.EncodecConfig(
            hidden_size=16,
            num_filters=4,
            upsampling_ratios=[4, 2],
            kernel_size=3,
            last_kernel_size=3,
            num_lstm_layers=1,
            codebook_size=64,
            target_bandwidths=[36.0],
        )
    )


class EncodecEncoder(nn.Module):
    """A waveform to what the quantiser is given."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = encodec()

    def forward(self, input_values: Tensor) -> Tensor:
        return self.codec.encoder(input_values)


def moonshine(layers: int) -> nn.Module:
    return transformers.MoonshineForConditionalGeneration(
        transformers.MoonshineConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=128,
            encoder_num_hidden_layers=layers,
            decoder_num_hidden_layers=layers,
            encoder_num_attention_heads=4,
            decoder_num_attention_heads=4,
            use_cache=False,
        )
    )


def waves(sizes: Sizes) -> dict[str, Any]:
    return {"input_values": torch.randn(sizes["batch"], sizes["samples"])}


def masked_waves(sizes: Sizes) -> dict[str, Any]:
    mask = torch.ones(sizes["batch"], sizes["samples"], dtype=torch.long)
    mask[0, -sizes["samples"] // 4 :] = 0
    return {**waves(sizes), "attention_mask": mask}


def spoken(sizes: Sizes) -> dict[str, Any]:
    written = torch.randint(3, 128, (sizes["batch"], sizes["target"]))
    return {**waves(sizes), "decoder_input_ids": written}


def one_channel(sizes: Sizes) -> dict[str, Any]:
    return {"input_values": torch.randn(sizes["batch"], 1, sizes["samples"])}


def speech(name: str, build: Callable[[int], nn.Module], notes: str, masked: bool = False) -> Entry:
    axes = {0: BATCH, 1: SAMPLES}
    inputs = masked_waves if masked else waves
    return Entry(
        name=name,
        family="audio",
        make=seeded(lambda: build(LAYERS)),
        inputs=inputs,
        dynamic_shapes=dict.fromkeys(inputs(EXAMPLE), axes),
        example=EXAMPLE,
        blocks=LAYERS,
        deeper=seeded(lambda: build(2 * LAYERS)),
        notes=notes,
    )


def codec(name: str, build: Callable[[], nn.Module], notes: str) -> Entry:
    return Entry(
        name=name,
        family="audio",
        make=seeded(build),
        inputs=one_channel,
        dynamic_shapes={"input_values": {0: BATCH, 2: SAMPLES}},
        example=EXAMPLE,
        notes=notes,
    )


ENTRIES: tuple[Entry, ...] = (
    speech("wav2vec2", wav2vec2, "speech to letters"),
    speech("wav2vec2-padded", wav2vec2, "waveforms of different lengths", masked=True),
    speech("hubert", hubert, "layer norms in the convolutions"),
    speech("wavlm", wavlm, "gated relative position biases"),
    Entry(
        name="ast",
        family="audio",
        make=seeded(lambda: spectrogram_transformer(LAYERS)),
        inputs=lambda sizes: {"input_values": torch.randn(sizes["batch"], 64, 32)},
        dynamic_shapes={"input_values": {0: BATCH}},
        example={"batch": 2},
        blocks=LAYERS,
        deeper=seeded(lambda: spectrogram_transformer(2 * LAYERS)),
        notes="patches of a spectrogram that overlap",
    ),
    codec("oobleck-encoder", OobleckEncoder, "strided convolutions, snake activations"),
    Entry(
        name="oobleck-decoder",
        family="audio",
        make=seeded(OobleckDecoder),
        inputs=lambda sizes: {"latents": torch.randn(sizes["batch"], 16, sizes["frames"])},
        dynamic_shapes={"latents": {0: BATCH, 2: Dim("frames", min=1, max=64)}},
        example={"batch": 2, "frames": 20},
        notes="latents to a waveform: transposed convolutions",
    ),
    codec("dac", dac, "encoder, residual quantiser and decoder"),
    codec("encodec-encoder", EncodecEncoder, "reflected paddings, computed of buffers and sizes"),
    Entry(
        name="encodec",
        family="audio",
        make=seeded(encodec),
        inputs=one_channel,
        dynamic_shapes={"input_values": {0: BATCH, 2: Dim("samples", sizes=[640, 801], ranges=[])}},
        example={"batch": 2, "samples": 640},
        notes="encoder, LSTM, residual quantiser and decoder; reflected paddings",
    ),
    Entry(
        name="moonshine",
        family="audio",
        make=seeded(lambda: moonshine(LAYERS)),
        inputs=spoken,
        dynamic_shapes={
            "input_values": {0: BATCH, 1: Dim("samples", min=1600, max=6400)},
            "decoder_input_ids": {0: BATCH, 1: Dim("target", min=1, max=32)},
        },
        example={"batch": 2, "samples": 3200, "target": 12},
        blocks=LAYERS,
        deeper=seeded(lambda: moonshine(2 * LAYERS)),
        notes="waveforms to text, of any length",
    ),
    Entry(
        name="hifi-gan",
        family="audio",
        make=seeded(hifi_gan),
        inputs=lambda sizes: {"spectrogram": torch.randn(sizes["batch"], sizes["frames"], 16)},
        dynamic_shapes={"spectrogram": {0: BATCH, 1: Dim("frames", min=1, max=64)}},
        example={"batch": 2, "frames": 20},
        notes="a vocoder: transposed convolutions",
    ),
)
