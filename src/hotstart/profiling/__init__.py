"""Profile a call: pieces and kernels, timed one by one."""
