"""Over-optimisation: what the true reward does while a learnt one is pushed up."""
