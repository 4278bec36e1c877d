"""Engines behind one small interface (``protocol.Engine``)."""
