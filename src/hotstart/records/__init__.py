"""Records of a program, as memory and files hold them; `trees` and `layout` work on live values.

No module here has `from __future__ import annotations`: decoders of files are made of the types of
fields when a program is loaded, and of types in half the time that they take of text.
"""
