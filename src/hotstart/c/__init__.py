"""The runtime in C++ that serves programs from C, and how to build it."""
