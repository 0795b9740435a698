"""The names users may rely on."""

import importlib.metadata
import pickle

import hotstart


def test_the_public_names_are_pinned() -> None:
    assert hotstart.__all__ == [
        "ArtifactError",
        "Bisection",
        "Call",
        "CaptureError",
        "CaptureReport",
        "CompileError",
        "ContractError",
        "CorruptArtifact",
        "Dim",
        "GroupMismatch",
        "HotstartError",
        "IncompatibleArtifact",
        "Manifest",
        "ModelMismatch",
        "ObservedCalls",
        "Options",
        "OptionsError",
        "PartitionError",
        "Profile",
        "Program",
        "RangeError",
        "Store",
        "StoreError",
        "UntrustedArtifact",
        "bisect",
        "compile",
        "compile_submodule",
        "compute_key",
        "explain_capture",
        "inspect",
        "install",
        "load",
        "observe",
        "profile",
        "profiler_ranges",
        "restore",
    ]


def test_every_public_name_exists_and_is_listed() -> None:
    for name in hotstart.__all__:
        assert getattr(hotstart, name).__doc__
        assert name in dir(hotstart)


def test_every_error_is_a_hotstart_error() -> None:
    for name in hotstart.__all__:
        public = getattr(hotstart, name)
        if isinstance(public, type) and issubclass(public, Exception):
            assert issubclass(public, hotstart.HotstartError)


def test_classes_say_where_users_find_them() -> None:
    public = [getattr(hotstart, name) for name in hotstart.__all__]
    errors = [e for e in public if isinstance(e, type) and issubclass(e, Exception)]
    for kind in (*errors, hotstart.Call, hotstart.Program, hotstart.Store, hotstart.Options):
        assert kind.__module__ == "hotstart"
        assert pickle.loads(pickle.dumps(kind)) is kind


def test_version() -> None:
    assert hotstart.__version__ == importlib.metadata.version("hotstart")
