"""What models are made of besides operators: hooks, parametrisations, caches, foreign modules."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

import hotstart
from hotstart import Dim, ModelMismatch
from tests.semantics import assert_same, build, check, mostly_eager

R = torch.randn
X = (R(2, 4),)


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


# --- compiled, scripted and exported modules -----------------------------------------------------


def test_a_compiled_submodule_is_part_of_the_graph() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.compile(nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + 1

    model = Outer()
    x = R(2, 4)
    inner = model.inner._orig_mod
    assert_same(build(model, x)(x), inner(x).detach() + 1, 1e-6)


def test_a_module_that_compiles_itself_is_taken_as_it_is() -> None:
    model = nn.Linear(4, 4)
    model.compile()
    assert_same(build(model, *X)(*X), model.forward(*X).detach(), 1e-6)


@pytest.mark.parametrize("model", [nn.Linear(4, 4), torch.relu])
def test_what_torch_compile_returned_is_refused(model: Any) -> None:
    with pytest.raises(hotstart.CaptureError, match=r"torch\.compile returned"):
        build(torch.compile(model), *X)


# torch.jit is deprecated, and says so.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_refused_by_name() -> None:
    scripted = nn.Sequential(nn.ReLU(), torch.jit.script(nn.Linear(4, 4)))
    with pytest.raises(hotstart.CaptureError, match=r"^1: got a torch\.jit\.ScriptModule"):
        build(scripted, *X)
    with pytest.raises(hotstart.CaptureError, match=r"^model: got a torch\.jit\.ScriptModule"):
        build(torch.jit.trace(nn.Linear(4, 4), X), *X)


# What torch.export says about its own module.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@mostly_eager
def test_exported_modules(compiler: str) -> None:
    model = torch.export.export(layers(), X).module()
    check(model, X, compiler=compiler, tolerance=1e-6, reference=model)


def test_graph_modules() -> None:
    model = torch.fx.symbolic_trace(layers())
    check(model, X, reference=model)


# --- hooks ---------------------------------------------------------------------------------------


@mostly_eager
def test_hooks_of_modules_inside(compiler: str) -> None:
    model = layers()
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    model[0].register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] * 2,), kwargs), with_kwargs=True
    )
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    check(model, X, compiler=compiler, tolerance=1e-6, reference=model)


def test_hooks_of_the_model_see_arguments_as_they_were_passed() -> None:
    model = nn.Linear(4, 4)
    model.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.register_forward_hook(lambda module, args, output: output * 2)
    check(model, X, reference=model)


def test_hooks_of_all_modules() -> None:
    handle = register_module_forward_hook(lambda module, args, output: output * 2)
    try:
        check(nn.Sequential(nn.Linear(4, 4)), X)
    finally:
        handle.remove()


def test_hooks_are_those_of_the_build() -> None:
    model = nn.Linear(4, 4)
    program = build(model, *X)
    assert_same(program(*X), model(*X).detach())
    handle = model.register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(ModelMismatch, match="hooks and methods of model: expected none"):
        program(*X)
    handle.remove()
    assert_same(program(*X), model(*X).detach())


@pytest.mark.thorough
def test_a_hook_that_keeps_what_it_sees_is_refused() -> None:
    seen: list[Tensor] = []
    model = layers()
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with pytest.raises(hotstart.CaptureError, match="Python state that outlives the call"):
        build(model, *X)
    assert seen == []


def test_backward_hooks_are_refused() -> None:
    model = layers()
    model[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(hotstart.CaptureError, match="backwards hooks"):
        build(model, *X)


# --- parametrisations ----------------------------------------------------------------------------


def pruned() -> nn.Module:
    model = nn.Linear(4, 4)
    prune.random_unstructured(model, "weight", 0.5)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: parametrizations.spectral_norm(nn.Linear(4, 4)).eval(),
        lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
        pruned,
    ],
    ids=["weight_norm", "spectral_norm", "orthogonal", "pruned"],
)
@mostly_eager
def test_weights_that_are_computed_from_others(make: Any, compiler: str) -> None:
    model = make()
    check(model, X, compiler=compiler, tolerance=1e-5, reference=model)


@mostly_eager
def test_spectral_norm_goes_on_iterating_in_training(compiler: str) -> None:
    torch.manual_seed(0)
    model, reference = (parametrizations.spectral_norm(nn.Linear(4, 4)) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    check(model, X, compiler=compiler, tolerance=1e-4, reference=reference)


@mostly_eager
def test_weights_may_be_arguments(compiler: str) -> None:
    linear = nn.Linear(4, 4)

    def f(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(linear, weights, (x,))

    weights = {"weight": R(4, 4), "bias": R(4)}
    check(f, (R(2, 4), weights), compiler=compiler, tolerance=1e-6)


# --- transformers --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("packs", [True, False])
@mostly_eager
def test_an_encoder_gives_what_eager_gives_at_padded_positions(
    packs: bool, norm: bool, compiler: str
) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    last = nn.LayerNorm(16) if norm else None
    model = nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=packs).eval()
    if last is not None:
        nn.init.normal_(last.bias)
    sizes = {0: Dim("batch", min=1, max=4), 1: Dim("steps", min=1, max=9)}
    program = hotstart.compile(
        model,
        (R(2, 5, 16),),
        {"src_key_padding_mask": torch.zeros(2, 5, dtype=torch.bool)},
        dynamic_shapes={"src": sizes, "src_key_padding_mask": sizes},
        options=hotstart.Options(compiler=compiler),  # type: ignore[arg-type]
    )
    for lengths in ([5, 3], [0, 2], [4, 4], [1]):
        padded = torch.arange(5) >= torch.tensor(lengths)[:, None]
        for mask in (padded, padded.flip(1)):
            x = R(*mask.shape, 16)
            with torch.no_grad():
                eager = model(x, src_key_padding_mask=mask)
            found = program(x, src_key_padding_mask=mask)
            torch.testing.assert_close(found, eager, equal_nan=True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_an_encoder_leaves_out_what_numbers_mask_at_the_ends() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, mask = R(2, 3, 16), torch.tensor([[0.0, 0.0, 0.5], [0.0, -1.0, 0.25]])
    program = build(model, x, None, mask)
    for given in (mask, mask.flip(1)):
        with torch.no_grad():
            torch.testing.assert_close(program(x, None, given), model(x, None, given))


@pytest.mark.thorough
@pytest.mark.parametrize("is_causal", [True, False])
@mostly_eager
def test_a_decoder_takes_any_mask(is_causal: bool, compiler: str) -> None:
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), 2).eval()
    target, memory, mask = Dim("target", max=6), Dim("memory", max=6), torch.zeros(4, 4)
    program = build(
        model,
        *(R(2, 4, 16), R(2, 5, 16), mask),
        compiler=compiler,
        dynamic_shapes={
            "tgt": {1: target},
            "memory": {1: memory},
            "tgt_mask": {0: target, 1: target},
        },
    )
    assert len(program.code) <= 2  # Inductor has another kernel for a target of one step
    for steps in (1, 4, 6):
        if is_causal:
            mask = nn.Transformer.generate_square_subsequent_mask(steps)
        else:
            mask = torch.zeros(steps, steps).fill_diagonal_(-1.0)
        x, memory_of = R(2, steps, 16), R(2, 5, 16)
        with torch.no_grad():
            expected = model(x, memory_of, mask)
        torch.testing.assert_close(program(x, memory_of, mask), expected)


@pytest.mark.thorough
@mostly_eager
def test_attention_over_sizes_from_1_takes_few_graphs(compiler: str) -> None:
    model = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    batch, steps, others = Dim("batch", max=4), Dim("steps", max=6), Dim("others", max=6)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            attended: Tensor = self.inner(x, y, y, need_weights=False)[0]
            return attended

    calls = [(R(b, s, 16), R(b, o, 16)) for b, s, o in ((2, 4, 5), (1, 1, 1), (1, 6, 1), (4, 1, 6))]
    program = check(
        Attention().requires_grad_(False),
        *calls,
        compiler=compiler,
        tolerance=1e-5,
        dynamic_shapes={"x": {0: batch, 1: steps}, "y": {0: batch, 1: others}},
    )
    assert len(program.code) == (1 if compiler == "op_by_op" else 2)  # Inductor has one for batch 1


def test_hooks_of_a_compiled_submodule_are_refused() -> None:
    model = nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"))
    hook = model[0].register_forward_hook(lambda _, __, result: result.relu())
    with pytest.raises(hotstart.CaptureError, match=r"0: expected a module without hooks"):
        build(model, *X)
    hook.remove()
    model[0]._orig_mod.register_forward_hook(lambda _, __, result: result.relu())
    check(model, X, tolerance=1e-6)


# --- decorators ----------------------------------------------------------------------------------


def plus_one(forward: Any) -> Any:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs) + 1

    return wrapper


class Decorated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2
        self.inner = nn.Linear(4, 4)

    @plus_one
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.inner(x) * self.scale + y


class Plain:
    """No module, so its attributes are found from the method that is compiled."""

    def __init__(self) -> None:
        self.scale = 2

    @plus_one
    def run(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_a_decorated_forward_takes_its_model_among_all_arguments() -> None:
    model = Decorated()
    check(model, (R(2, 4), R(2, 4)), (R(2, 4), R(2, 4)))
    program = build(model, R(2, 4), R(2, 4))
    model.scale = 3
    with pytest.raises(hotstart.ModelMismatch, match="scale"):
        program(R(2, 4), R(2, 4))


def test_a_decorated_method_of_an_object_that_is_no_module() -> None:
    owner = Plain()
    program = build(owner.run, R(2, 4))
    x = R(2, 4)
    assert torch.equal(program(x), x * 2 + 1)
    owner.scale = 3
    with pytest.raises(hotstart.ModelMismatch, match="scale"):
        program(x)


# --- recurrent layers ----------------------------------------------------------------------------


class Tagger(nn.Module):
    """A recurrent layer between two others."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)
        self.layer = getattr(nn, kind)(4, 6, **settings)
        self.out = nn.Linear(12 if self.layer.bidirectional else 6, 2)

    def forward(self, ids: Tensor, state: Any = None) -> Any:
        steps, last = self.layer(self.embedding(ids), state)
        return self.out(steps), last


RECURRENT = [
    ("GRU", {}),
    ("GRU", {"batch_first": True, "bidirectional": True, "num_layers": 2, "dropout": 0.5}),
    ("GRU", {"bias": False}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("RNN", {"batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
]


def _lengths(batch_first: bool) -> dict[str, Any]:
    length, batch = hotstart.Dim("length", min=2, max=64), hotstart.Dim("batch", min=2, max=8)
    return {"ids": dict(enumerate((batch, length) if batch_first else (length, batch)))}


@pytest.mark.parametrize(("kind", "settings"), RECURRENT)
def test_recurrent_layers_serve_every_length_with_one_graph(
    kind: str, settings: dict[str, Any]
) -> None:
    model = Tagger(kind, **settings).eval()
    calls = [(torch.randint(16, shape),) for shape in ((5, 3), (2, 8), (8, 7))]
    shapes = _lengths(bool(settings.get("batch_first")))
    program = check(model, *calls, dynamic_shapes=shapes, tolerance=1e-6)
    assert len(program.report.variants) == 1


def test_recurrent_layers_take_states_and_single_sequences() -> None:
    model = Tagger("GRU").eval()
    states = [(torch.randint(16, (n, b)), R(1, b, 6)) for n, b in ((5, 3), (9, 2))]
    shapes = _lengths(batch_first=False)
    shapes["state"] = {1: shapes["ids"][1]}
    check(model, *states, dynamic_shapes=shapes, tolerance=1e-6)
    single = [(torch.randint(16, (n,)),) for n in (5, 9)]
    shapes = {"ids": {0: hotstart.Dim("length", min=2, max=64)}}
    check(model, *single, dynamic_shapes=shapes, tolerance=1e-6)


@pytest.mark.thorough
def test_recurrent_layers_are_not_compiled_step_by_step() -> None:
    model = Tagger("GRU").eval()
    ids = torch.randint(16, (40, 2))
    program = check(model, (ids,), compiler="inductor", tolerance=1e-5)
    assert [piece.kind for piece in program.artifact.pieces].count("inlined") == 1
