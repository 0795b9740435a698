"""Programs in processes that have not imported torch: native code over libtorch_cpu alone."""
