"""Rewards of textgym for other libraries' trainers, and theirs for textgym: `textgym.interop.trl`, `textgym.interop.verifiers`."""
