"""Records of a program, as memory and files hold them; `trees` and `layout` work on live values."""
