"""Checks on wire bytes that come before any decoder."""
