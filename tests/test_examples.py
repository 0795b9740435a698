"""Every example runs, and shows what it says it shows."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("kept_pieces")

FOLDER = Path(__file__).parents[1] / "examples"
SHOWN = {
    "embed": ["cosine to eager: 1.000000", "imported transformers: False"],
    "embed_numpy": [
        "cosine to eager: 1.000000",
        "the same from lists and arrays: True",
        "imported torch: False",
    ],
    "generate": ["the same tokens as the model itself: True"],
    "observe_calls": ["axis seq: ", "src_key_padding_mask", "difference to eager: "],
    "observe_embeddings": ["difference to eager: "],
    "observe_images": ["difference to eager: "],
    "observe_texts": ["difference to eager: "],
    "quickstart": ["difference", "refused: "],
    "serve": ["cold: ", "hot: ", "an embedding of 384 numbers", "imported torch: False"],
    "ways_in": ["difference", "refused: "],
    "weights_later": ["difference", "refused: "],
}


NEEDS = {
    "observe_embeddings": ("sentence_transformers",),
    "observe_images": ("diffusers",),
    "serve": ("fastapi", "uvicorn"),
}
LONG = {"embed", "embed_numpy", "generate", "serve"}
LONG |= {"observe_calls", "observe_embeddings", "observe_images", "observe_texts"}
EXAMPLES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else [])
    for path in sorted(FOLDER.glob("*.py"))
]


@pytest.mark.thorough
@pytest.mark.parametrize("path", EXAMPLES)
def test_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package, reason=f"the example takes {package}")
    runpy.run_path(str(path))["main"]()
    printed = capsys.readouterr().out
    for text in SHOWN[path.stem]:
        assert text in printed
