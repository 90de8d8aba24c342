"""Fitted reward models: one model, an ensemble, and what corrects or guards their scores."""
