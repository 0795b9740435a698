"""Encoders, called with padded batches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize

from hotstart import Dim
from qualification.conformance.zoo.text import RANGES, SMALL, VOCABULARY, encoder


class Embedder(nn.Module):
    """Sentence embeddings as E5 makes them: the normalised mean of what the mask leaves."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of shape (batch, hidden), each of length 1."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[..., None].to(hidden.dtype)
        return normalize((hidden * kept).sum(1) / kept.sum(1), dim=1)


# RoBERTa counts positions from the one after that of padding.
ROBERTA = {**SMALL, "pad_token_id": 1, "bos_token_id": 0, "type_vocab_size": 1}

EVEN = Dim("seq", ranges=[], sizes=[8, 24])
"""Positions that are counted in Python are other constants for every length."""

ENTRIES = (
    encoder("bert", "BertForMaskedLM", seq=RANGES),
    encoder("bert-pooler", "BertModel"),
    encoder(
        "bert-hidden-states",
        "BertModel",
        {**SMALL, "output_hidden_states": True},
        notes="returns the states of every layer, which hooks take down",
    ),
    encoder(
        "funnel",
        "FunnelModel",
        {
            "block_sizes": lambda layers: [layers // 2] * 2,
            "d_model": 64,
            "n_head": 4,
            "d_head": 16,
            "d_inner": 128,
            "vocab_size": VOCABULARY,
        },
        seq=EVEN,
        notes="a pool between two blocks; its positions are a list of Python's",
    ),
    encoder("roberta", "RobertaForSequenceClassification", {**ROBERTA, "num_labels": 3}),
    encoder("xlm-roberta", "XLMRobertaModel", ROBERTA),
    encoder(
        "modernbert",
        "ModernBertForMaskedLM",
        {
            **SMALL,
            "local_attention": 24,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        notes="local and global attention in turns",
    ),
    encoder(
        "distilbert",
        "DistilBertForMaskedLM",
        {
            "n_layers": lambda layers: layers,
            "dim": 64,
            "n_heads": 4,
            "hidden_dim": 128,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
        },
    ),
    encoder(
        "deberta-v2",
        "DebertaV2Model",
        {
            **SMALL,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
        },
        notes="disentangled attention over buckets of distances",
    ),
    encoder("electra", "ElectraForPreTraining", {**SMALL, "embedding_size": 32}),
    encoder(
        "albert", "AlbertForMaskedLM", {**SMALL, "embedding_size": 32}, notes="one layer, repeated"
    ),
    encoder("mpnet", "MPNetModel", ROBERTA, notes="relative positions"),
    encoder(
        "t5-encoder",
        "T5EncoderModel",
        {
            "num_layers": lambda layers: layers,
            "d_model": 64,
            "num_heads": 4,
            "d_kv": 16,
            "d_ff": 128,
            "vocab_size": VOCABULARY,
            "relative_attention_num_buckets": 16,
            "relative_attention_max_distance": 32,
        },
    ),
    encoder("e5", "BertModel", wrap=Embedder, notes="BERT, then the mean under the mask"),
    encoder("esm", "EsmModel", {**SMALL, "position_embedding_type": "rotary", "mask_token_id": 4}),
    encoder("roformer", "RoFormerModel", {**SMALL, "embedding_size": 64}),
)
