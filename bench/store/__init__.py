"""Bytes that survive a kill."""
