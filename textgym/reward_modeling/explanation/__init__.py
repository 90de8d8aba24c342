"""Explanation: which words make a reward what it is."""
