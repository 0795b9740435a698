"""The native form of variants: generated Python, translated to C++ and compiled with a program."""
