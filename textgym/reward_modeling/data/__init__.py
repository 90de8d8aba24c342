"""Judgements of people as data: kinds, files, splits, conversion, augmentation."""
