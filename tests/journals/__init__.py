"""Tests of the journals. A package, so that they can share `logs`."""
