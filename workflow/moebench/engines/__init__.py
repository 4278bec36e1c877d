"""Engines with one small interface (``protocol.Engine``)."""
