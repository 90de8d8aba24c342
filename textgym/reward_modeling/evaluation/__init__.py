"""Evaluation: how well a reward agrees with people."""
