"""Imitation: a reward from good texts alone - a discriminator that tells an expert's tokens from a policy's."""
