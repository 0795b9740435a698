"""Records that stages hand to each other and files hold: data without torch."""
