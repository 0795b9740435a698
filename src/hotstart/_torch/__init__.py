"""The only place that touches private names of torch.

Supported: torch 2.11 to 2.15. Every private name says why it is needed; where versions differ, the
difference is handled here and nowhere else. Dynamo, Inductor and sympy are imported inside the
functions that build, so that a process that only runs programs does not pay for them.
"""
