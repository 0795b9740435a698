"""Under which key a program is kept: what decides how it is compiled, found without tracing."""
