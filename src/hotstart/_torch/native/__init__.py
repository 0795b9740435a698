"""Headers, functions and libraries for C++ that links libtorch."""
