"""The measurement side: standard library only, so that it runs in any engine's environment."""
