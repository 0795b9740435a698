"""The version, kept here because asking the installed package's metadata takes milliseconds."""

VERSION = "0.1.0.dev0"
