"""Reward modelling: from human judgements to a reward model - data, scorers, losses, fitting, evaluation, explanation."""
