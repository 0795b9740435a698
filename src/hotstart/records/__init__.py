"""Records that stages hand to each other and files hold; `trees` and `layout` serve live values."""
