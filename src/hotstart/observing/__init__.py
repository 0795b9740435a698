"""Contracts that are learnt from calls: recorded, kept in files, proposed as calls to build for."""
