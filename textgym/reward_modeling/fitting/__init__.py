"""Fitting: from judgements to a reward model - plain, in ensembles, pre-trained, distilled, hardened."""
