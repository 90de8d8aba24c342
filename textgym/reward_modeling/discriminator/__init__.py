"""Discriminator: a reward from good texts alone - a network that tells an expert's tokens from a policy's."""
