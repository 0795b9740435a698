"""The entry of a program: a call checked, its variant chosen."""
