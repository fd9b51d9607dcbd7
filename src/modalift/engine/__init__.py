"""Experiments: build, train, evaluate, compare and ship; prints nothing."""
