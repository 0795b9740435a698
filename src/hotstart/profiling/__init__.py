"""Where the time of a call goes: pieces and kernels, timed one by one."""
