"""What C++ needs that links libtorch."""
