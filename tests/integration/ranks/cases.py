"""What ranks do in the tests beside."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import hotstart
import hotstart.events
from tests.integration.ranks import calls, models
from tests.integration.ranks.launch import Rank

OP_BY_OP = hotstart.Options(compiler="op_by_op")


def away(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return float((one - other).abs().max())


def refused(call: Any, *args: Any, **kwargs: Any) -> str:
    """The error that a call raises, with the name of its class."""
    try:
        call(*args, **kwargs)
    except hotstart.HotstartError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def value(result: Tensor) -> float:
    """The first number of a result."""
    return float(result[0, 0])


def llama(rank: Rank, options: hotstart.Options) -> dict[str, Any]:
    """Compile on all ranks, with one store; save on the first and load on all."""
    expected, model = models.llama(), models.parallel_llama(rank.number, rank.size)
    ids = models.IDS
    store = hotstart.Store(rank.folder / "store", check=options is OP_BY_OP)
    given = {"dynamic_shapes": models.SEQ, "options": options}
    key = hotstart.compute_key(model, (ids,), **given)
    program = hotstart.compile(model, (ids,), **given, cache=store)
    with torch.no_grad():
        errors = [away(program(part), expected(part)) for part in (ids, ids[:, :3].contiguous())]
    file = rank.folder / "llama.hot"
    if rank.is_first:
        program.save(file, check=options is not OP_BY_OP)  # no other rank takes part
    dist.barrier()
    loaded = hotstart.load(file, model)
    alone = hotstart.load(file, weights=dict(model.state_dict()))
    with torch.no_grad():
        errors += [away(each(ids), expected(ids)) for each in (loaded, alone)]
    return {
        "errors": errors,
        "key": key.digest,
        "compiled": "compiled" in {unit.action for unit in program.report.units},
        "kept": len(store.probe(key)),
        "report": str(program.report),
        "op by op": len(program.report.op_by_op),
        "pieces": [program.report.pieces, program.report.unique],
    }


def compiled_llama(rank: Rank) -> dict[str, Any]:
    return llama(rank, hotstart.Options())


def op_by_op_llama(rank: Rank) -> dict[str, Any]:
    return llama(rank, OP_BY_OP)


def experts(rank: Rank) -> dict[str, Any]:
    """Experts over the ranks: one build serves all of them."""
    torch.manual_seed(1)
    x = torch.randn(6, 16)
    whole, part = models.experts(), models.parallel_experts(rank.number, rank.size)
    store = hotstart.Store(rank.folder / "store", check=False)
    program = hotstart.compile(part, (x,), options=OP_BY_OP, cache=store)
    exchanging = models.ExchangingExperts(rank.number).eval()
    everyone = [models.ExchangingExperts(number).eval() for number in range(rank.size)]
    own = torch.randn(2 * rank.size, 16) + rank.number
    exchange = hotstart.compile(exchanging, (own,), options=OP_BY_OP, cache=store)
    with torch.no_grad():
        parts = [torch.tanh(e.expert(own[2 * n : 2 * n + 2])) for n, e in enumerate(everyone)]
        return {
            "errors": [
                away(program(x), whole(x)),
                away(exchange(own), own + torch.cat(parts)),
            ],
            "compiled": ["compiled" in {u.action for u in p.report.units} for p in
                         (program, exchange)],
        }  # fmt: skip


def own_operators(rank: Rank) -> dict[str, Any]:
    """An operator of one's own that waits for others is not run while one rank builds."""
    x = torch.full((2, 3), float(rank.number + 1))
    model = calls.Calls(calls.add_up)
    store = hotstart.Store(rank.folder / "store")
    program = hotstart.compile(model, (x,), cache=store)
    with torch.no_grad():
        error = away(program(x), model(x))
    return {"error": error, "save": refused(program.save, rank.folder / f"{rank.number}.hot")}


def uneven(rank: Rank) -> dict[str, Any]:
    """Ranks whose shares differ compile their own programs, side by side."""
    model = models.Uneven(rank.number, rank.size).eval()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    whole = models.Uneven(0, 1).eval()
    store = hotstart.Store(rank.folder / "store", check=False)
    program = hotstart.compile(model, (x,), options=OP_BY_OP, cache=store)
    file = rank.folder / f"uneven_{rank.number}.hot"
    program.save(file, check=False)
    dist.barrier()
    expected = torch.relu(x @ whole.up.weight.T) @ whole.down.weight.T
    other = rank.folder / f"uneven_{1 - rank.number}.hot"
    return {
        "error": away(program(x), expected),
        "key": hotstart.compute_key(model, (x,), options=OP_BY_OP).digest,
        "other": refused(hotstart.load, other, model),
    }


def collectives(rank: Rank) -> dict[str, Any]:
    """Every collective gives what it gives in eager, and the input is what it was."""
    found: dict[str, Any] = {}
    x = torch.randn(2 * rank.size, 3, generator=torch.Generator().manual_seed(rank.number))
    for name, function in calls.COLLECTIVES.items():
        given, other = x.clone(), x.clone()
        model = calls.Calls(function).eval()
        program = hotstart.compile(model, (given,), options=OP_BY_OP)
        with torch.no_grad():
            expected = model(other)
            again = [program(given), program(given)]
        found[name] = [torch.equal(one, expected) for one in again] + [torch.equal(given, other)]
    return found


def refusals(rank: Rank) -> dict[str, Any]:
    """What programs do not have is refused while it is traced, on every rank alike."""
    x = torch.ones(2, 2)
    refusing = {name: calls.Calls(function) for name, function in calls.REFUSED.items()}
    refusing["dtensor"] = calls.distributed_tensors(rank.size)
    return {
        name: refused(hotstart.compile, model, (x,), options=OP_BY_OP)
        for name, model in refusing.items()
    }


def groups(rank: Rank) -> dict[str, Any]:
    """A program is bound to the groups that there are when it is loaded."""
    x = torch.full((2, 2), float(rank.number + 1))
    pair = dist.new_group([0, 1], group_desc="tp")
    single = [dist.new_group([number]) for number in range(2)][rank.number]
    another = dist.new_group([0, 1])
    model = calls.InGroup(pair)
    store = hotstart.Store(rank.folder / "store", check=False)
    program = hotstart.compile(model, (x,), options=OP_BY_OP, cache=store)
    file = rank.folder / "group.hot"
    if rank.is_first:
        program.save(file, check=False)
    dist.barrier()
    found = hotstart.compile(calls.InGroup(another), (x,), options=OP_BY_OP, cache=store)
    load = partial(hotstart.load, file)
    bound = {
        "compiled": value(program(x)),
        "found": value(found(x)),
        "of the model": value(load(calls.InGroup(another))(x)),
        "given": value(load(weights={}, groups={"tp": another})(x)),
        "by name": value(load(weights={}, groups={"tp": another.group_name})(x)),
    }
    model.group = another  # as weights are, groups are followed
    bound["replaced"] = value(program(x))
    model.group = single
    errors = {
        "replaced by a smaller": refused(program, x),
        "not given": refused(load, weights={}),
        "too small": refused(load, calls.InGroup(single)),
        "given too small": refused(load, weights={}, groups={"tp": single}),
        "unknown": refused(load, weights={}, groups={"dp": pair, "tp": pair}),
        "no group": refused(load, weights={}, groups={"tp": 3}),
    }
    dist.barrier()
    dist.destroy_process_group()
    errors["not initialised"] = refused(load, weights={}, groups={"tp": "1"})
    errors["ended"] = refused(found, x)
    return {"bound": bound, "errors": errors, "loaded": [u.action for u in found.report.units]}


def two_groups(rank: Rank) -> dict[str, Any]:
    """One group that is read twice is not two of the same size."""
    x = torch.full((2, 2), float(rank.number + 1))
    pair, another = dist.new_group([0, 1]), dist.new_group([0, 1])
    both = hotstart.compile(calls.InTwoGroups(pair, another), (x,), options=OP_BY_OP)
    once = hotstart.compile(calls.InTwoGroups(pair, pair), (x,), options=OP_BY_OP)
    if rank.is_first:
        once.save(rank.folder / "once.hot", check=False)
        both.save(rank.folder / "both.hot", check=False)
    dist.barrier()
    one, two = calls.InTwoGroups(pair, pair), calls.InTwoGroups(pair, another)
    return {
        "groups": [len(each.artifact.requirements.groups) for each in (both, once)],
        "values": [value(each(x)) for each in (both, once)],
        "one for two": refused(hotstart.load, rank.folder / "once.hot", two),
        "two for one": refused(hotstart.load, rank.folder / "both.hot", one),
    }


def meshes(rank: Rank) -> dict[str, Any]:
    """Groups of a mesh of two by two: one build serves all, whatever their groups are called."""
    x = torch.full((2, 2), float(10**rank.number))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    own, other = rank.number, rank.number ^ 1
    expected = float(10**own + 10**other + 2)
    store = hotstart.Store(rank.folder / "store", check=False)
    found: dict[str, Any] = {}
    for name, model in (
        ("group", calls.InGroup(mesh.get_group("tp"))),
        ("mesh", calls.InMesh(mesh)),
        ("closure", calls.in_group(mesh.get_group("tp"))),
    ):
        program = hotstart.compile(model, (x,), options=OP_BY_OP, cache=store)
        keys = sorted(spec.key for spec in program.artifact.requirements.groups)
        key = hotstart.compute_key(model, (x,), options=OP_BY_OP)
        kept = len(store.probe(key))
        found[name] = [value(program(x)) - expected, keys, kept, key.digest]
    return found


def own_rank(rank: Rank) -> dict[str, Any]:
    """A program that knows its rank is for that rank."""
    x = torch.ones(2, 2)
    results: dict[str, Any] = {}
    mesh = init_device_mesh("cpu", (rank.size,), mesh_dim_names=("tp",))
    store = hotstart.Store(rank.folder / "store", check=False)
    os.environ["HOTSTART_TESTS_RANK"] = str(rank.number)
    for name, function in calls.ASKING.items():
        model = calls.Asks(function, mesh, rank.number)
        program = hotstart.compile(model, (x,), options=OP_BY_OP, cache=store)
        file = rank.folder / f"{name}_{rank.number}.hot"
        program.save(file, check=False)
        dist.barrier()
        other = rank.folder / f"{name}_{1 - rank.number}.hot"
        results[name] = [
            torch.equal(program(x), model(x)),
            refused(hotstart.load, other, model),
            refused(hotstart.load, other, weights={}),
        ]
        again = hotstart.compile(model, (x,), options=OP_BY_OP, cache=store)
        results[name] += [torch.equal(again(x), model(x))]
        dist.barrier()
    return results


def dies(rank: Rank) -> dict[str, Any]:
    """The first rank is killed while it builds and the others wait for the lock of the store."""
    model = models.parallel_llama(rank.number, rank.size)
    building, waiting = rank.folder / "building", rank.folder / "waiting"

    def killed(event: hotstart.events.Event) -> None:
        if rank.is_first:
            building.touch()
            _wait_for(waiting)
            time.sleep(1.0)  # by now they wait
            os.kill(os.getpid(), signal.SIGKILL)

    if not rank.is_first:
        _wait_for(building)
        waiting.touch()
    begin = time.monotonic()
    options = hotstart.Options(compiler="op_by_op", on_event=killed)
    program = hotstart.compile(model, (models.IDS,), options=options, cache=rank.folder / "store")
    built = time.monotonic() - begin
    try:
        program(models.IDS)
    except RuntimeError as error:
        return {"built_s": built, "call": str(error), "took_s": time.monotonic() - begin}
    return {"call": "nothing was raised"}


def _wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)


def regions(rank: Rank) -> dict[str, Any]:
    """Collectives in autocast, on views, and in torch.compile."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(rank.number))
    found: dict[str, Any] = {}
    for name, model in calls.regions().items():
        program = hotstart.compile(model, (x,), options=OP_BY_OP)
        with torch.no_grad():
            here, there = x.clone(), x.clone()
            found[name] = away(program(here).float(), model(there).float()) + away(here, there)
    rows = {"x": {0: hotstart.Dim("rows", min=2, max=9)}}
    gathering = calls.Calls(calls.COLLECTIVES["all_gather_into_tensor"])
    program = hotstart.compile(gathering, (x,), dynamic_shapes=rows, options=OP_BY_OP)
    with torch.no_grad():
        found["rows"] = away(program(x[:3]), gathering(x[:3]))
    exchanging = calls.Calls(calls.exchanged)
    program = hotstart.compile(exchanging, (x,), dynamic_shapes=rows, options=OP_BY_OP)
    with torch.no_grad():
        found["exchanged rows"] = away(program(x[:2]), exchanging(x[:2]))
    model = models.Uneven(rank.number, rank.size).eval()
    compiled = torch.compile(model, backend="hotstart", fullgraph=True,
                             options={"compiler": "op_by_op"})  # fmt: skip
    with torch.no_grad():
        found["torch.compile"] = away(compiled(x), model(x))
    return found
