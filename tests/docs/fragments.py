"""Every block of the docs that no test runs, and why. All others run."""

from __future__ import annotations

PYTHON = {
    (
        "CONTRIBUTING.md",
        "def test_message() -> None:",
    ): "an expectation to be filled in by the reader",
    ("docs/cache.md", 'program = hotstart.compile(model, args, options=Options(jobs="ray"))'): (
        "takes a Ray cluster; tests/integration/test_ray.py runs it"
    ),
    ("docs/weights.md", "import hotstart  # torch is installed, and not imported"): (
        "takes a process without torch; tests/docs/test_tutorial.py and tests/integration/"
        "test_torchfree*.py have one"
    ),
    ("docs/observe.md", 'program = calls.compile(min={"seq": 1}, max={"seq": 512})'): (
        "four ways that are for four models; tests/unit/observe and tests/integration/observe"
    ),
    ("docs/observe.md", "from hotstart.integrations.diffusers import compile, load, save"): (
        "takes a pipeline with gigabytes of weights; examples/observe_images.py is one without"
    ),
}
"""By page and first line."""

COMMANDS = {
    "profile encoder.hot --weights model.safetensors --size batch=4 --size seq=128": (
        "takes a program of two axes and its weights; tests/integration/test_profile.py"
    ),
    "profile encoder.hot --weights model.safetensors --size batch=4 --size seq=128 "
    "--trace call.json": "as above",
    "repro debug/hotstart/piece_3": (
        "takes a build of four pieces, and ends the process; tests/integration/test_repro.py"
    ),
    "bisect shop.search:encoder --file encoder.hot --tolerance 1e-5": (
        "takes the flags of the page's build; tests/integration/test_bisect.py"
    ),
    "c-library build": "takes a minute of a C++ compiler; tests/integration/test_c_library.py",
    "warm shop.search:encoder shop.rank:model --on ray --remote s3://models/cache": (
        "takes a Ray cluster; tests/integration/test_ray.py"
    ),
}
"""Commands of hotstart that are parsed, and not run here."""
