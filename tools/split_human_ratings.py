"""Fixed train / validation / test splits of the human ratings, written as one bundled file of judgements.

Usage: python tools/split_human_ratings.py SOURCE.tsv.gz

A sentence's split is a function of its group alone (SHA-256 of the group's name), so it never depends on row order or on a seed:
80 % of the groups train, 10 % validate, 10 % test. Two rows share a group when their texts are equal up to case, digits and punctuation,
or when they are sentences of the same product document; groups that touch are joined.
"""

import csv
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path

from textgym.reward_modeling.data.judgements import JudgementSet, RatedText, Split
from textgym.reward_modeling.data.writing import write_judgements

TARGET = Path(__file__).resolve().parents[1] / "plugins/textgym_plugins/data/human_ratings/human_ratings.jsonl.gz"


def normalised(text: str) -> str:
    """Return the letters of `text`, lower-cased, single-spaced: the key under which near-identical sentences meet."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def groups(rows: list[dict[str, str]]) -> list[str]:
    """Return one group name per row (union-find over documents and normalised texts)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for row in rows:
        own = "document:" + row["id"].split("_")[0] if row["source"] == "product" else "row:" + row["id"]
        first, second = sorted((root(own), root("text:" + (normalised(row["text"]) or row["id"]))))
        parent[second] = first
    return [root("document:" + row["id"].split("_")[0] if row["source"] == "product" else "row:" + row["id"]) for row in rows]


def split_of(group: str) -> Split:
    """Return the split that a group belongs to."""
    share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


def main() -> None:
    """Read the source table, draw the splits, write the bundled file."""
    with gzip.open(sys.argv[1], "rt", encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE))
    items = [
        RatedText(
            id=row["id"],
            source=row["source"],
            group="" if group == "row:" + row["id"] else group,
            split=split_of(group),
            rating=float(row["mean"]),
            ratings=tuple(map(float, json.loads(row["ratings"] or "[]"))),
            text=row["text"],
        )
        for row, group in zip(rows, groups(rows), strict=True)
    ]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    write_judgements(JudgementSet("ratings", tuple(items), low=-4.0, high=4.0), TARGET)
    for name in ("train", "validation", "test"):
        print(name, sum(item.split == name for item in items))


if __name__ == "__main__":
    main()
