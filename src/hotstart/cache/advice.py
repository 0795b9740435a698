"""Say what to do about something that differs from a stored program. Imports no torch."""

from __future__ import annotations

import re

from hotstart.records.guards import Change

_ADVICE = (
    (
        r"hotstart|python|torch|torch_build|platform|libc|records",
        "Install the version that was there, or compile anew with the one that is: a program is "
        "for the versions that compiled it.",
    ),
    (
        r"threads",
        "Use as many threads where the cache is filled as where it is read: OMP_NUM_THREADS, or "
        "torch.set_num_threads before hotstart.compile.",
    ),
    (r"environment .*", "Set the variable alike in both processes, or unset it in both."),
    (r"options\..*", "Give the same hotstart.Options, or the same flag, in both places."),
    (r"split_on|extra_key", "Give the same one in both places."),
    (
        r"default dtype|default device|deterministic|matmul precision|mkldnn|autocast|torch\._.*",
        "Set it alike in both processes, before the model is compiled.",
    ),
    (r"every module's .*", "Register the same global hooks in both processes, or none."),
    (
        r"call .*axis .*",
        "Declare the same hotstart.Dim, with the same ranges and sizes, in both places.",
    ),
    (
        r"call .*",
        "Compile with the same example call in both places; a size that may differ has to be "
        "declared, dynamic_shapes={...: {0: hotstart.Dim(...)}}.",
    ),
    (
        r"source .*",
        "The model's source was edited: compile anew, or run the version that was compiled.",
    ),
    (
        r"instructions.*",
        "Compile on a processor like that which serves, or for a level that both have: "
        "Options(target='x86-64-v3'), --target x86-64-v3.",
    ),
    (
        r"its file",
        "Nothing: it is compiled anew. `hotstart cache verify` lists what else is damaged.",
    ),
    (r"its signature", "Give the key that signed it, --trusted-key, if you trust its owner."),
    (r"loading it", "Compile anew; the error says why it cannot be loaded."),
)
"""Regular expressions of the names of parts, the first of which counts, each with its advice."""

_MODES = "Call model.eval() in both places, or model.train() in both."
_TENSOR = "Bring the weight into the dtype, shape and layout that it had, or compile anew."
_MODULE = (
    "Build the model of the same classes with the same settings, or compile anew: a module was "
    "replaced, patched or edited."
)
_READ = (
    "Forward reads this. Give it the value that it had, or compile anew: both programs are kept, "
    "side by side."
)


def advice_for(change: Change) -> str:
    """Say in a sentence or two what to do about a part that differs."""
    part, was, now = change
    if re.match(r"model\b", part):
        return _of_model(was, now)
    return next((advice for name, advice in _ADVICE if re.fullmatch(name, part)), _READ)


def _of_model(was: str, now: str) -> str:
    modes = {text.rpartition(" in ")[2] for text in (was, now)}
    if modes == {"training", "evaluation"}:
        return _MODES
    return _TENSOR if "torch." in was + now and "[" in was + now else _MODULE
