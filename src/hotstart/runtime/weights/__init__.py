"""The weights a program runs on."""
