"""Compare scorers and losses on the bundled human ratings: agreement with people on the test split, time to fit, speed.

Usage: python benchmarks/reward_modeling.py [--train N] [--only TEXT] [--out FILE.json]
       python benchmarks/reward_modeling.py --stack REWARD REWARD ... (names or folders of fitted rewards)
       python benchmarks/reward_modeling.py --curve FOLDER [--only SCORER] [--sizes N,N,...]

All models see the same training sentences. Losses on labels see the mean rating in five classes; losses on pairs see one pair a sentence, drawn
from sentences of the same source at least half a point apart. On the test split every score is compared with the mean rating: Pearson, Spearman,
MSE after one straight line fitted on the validation split (so that scores on another scale can be compared), macro F1 of negative against
positive (threshold chosen on the validation split); brackets are 95 % bootstrap intervals over sentences (1,000 resamples, seed 0).
Rows already in FILE.json are kept, so the table can be made in several runs.

--stack measures finished rewards, each alone and all together: least squares on the validation split, with an intercept; the difference in Pearson
to the best alone (by validation) with a paired bootstrap interval; and, for comparison, how one rater agrees with the mean of a text's other raters.

--curve refits two cheap scorers to draws of 50 to all training sentences, three a size, and draws Pearson on the test split over their number
(FOLDER/learning-curve.png; the figures are in FOLDER/SCORER.json, and a scorer whose figures are there is not fitted again).

Times are CPU seconds of one thread, so they hardly depend on what else the machine does.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import textgym
from textgym.classification import classification
from textgym.reward_modeling.data.judgement_source import load_judgements, sample
from textgym.reward_modeling.data.judgements import JudgementSet, LabelledText, PreferencePair
from textgym.reward_modeling.evaluation.learning_curve import LearningCurve, learning_curve
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.metrics import agreement
from textgym.reward_modeling.scorers.features import HiddenStates, SentenceEmbeddings

CLASSES = ("very negative", "negative", "neutral", "positive", "very positive")
EDGES = (-2.0, -0.5, 0.5, 2.0)
MIN_GAP = 0.5  # points between the texts of a pair
N_RESAMPLES = 1000
CURVE_SIZES = (50, 100, 200, 400, 800, 1600, 3200, 6400)

ROWS = [
    ("tfidf ridge", "tfidf", "squared-error", {}),
    ("tfidf svm", "tfidf", "squared-error", {"learner": "svm"}),
    ("tfidf logistic", "tfidf", "cross-entropy", {}),
    ("tfidf logistic", "tfidf", "bradley-terry", {}),
    *[("embedding", "embedding", loss, {}) for loss in ("squared-error", "heteroscedastic", "bradley-terry", "cross-entropy", "ordinal")],
    *[("mlp", "mlp", loss, {}) for loss in ("squared-error", "heteroscedastic", "bradley-terry", "cross-entropy", "ordinal")],
    ("lm-linear", "lm-linear", "squared-error", {}),
    ("transformer", "transformer", "squared-error", {"dtype": "bfloat16", "max_tokens": 96}),
    ("transformer", "transformer", "heteroscedastic", {"dtype": "bfloat16", "max_tokens": 96}),
    ("transformer", "transformer", "multi-task", {"dtype": "bfloat16", "max_tokens": 96}),
    ("transformer LoRA 8", "transformer", "squared-error", {"dtype": "bfloat16", "max_tokens": 96, "lora_rank": 8}),
    (
        "transformer mpnet, 4 of 12 layers frozen",
        "transformer",
        "squared-error",
        {"model": "mpnet", "dtype": "bfloat16", "max_tokens": 96, "frozen_layers": 4},
        {"epochs": 1, "batch_size": 16, "learning_rate": 8e-5},
    ),
]


def with_aspects(ratings):
    """Return the ratings with two more things that the raters said: how far they disagree, and which share of them liked the text."""
    items = []
    for item in ratings.items:
        if len(item.ratings) > 1:
            values = np.array(item.ratings)
            item = replace(item, aspects={"spread": float(values.std()), "liked": float((values > 0).mean())})
        items.append(item)
    return replace(ratings, items=tuple(items))


def as_labels(ratings):
    items = [
        LabelledText(id=i.id, text=i.text, label=CLASSES[int(np.digitize(i.rating, EDGES))], source=i.source, split=i.split)
        for i in ratings.items
    ]
    return JudgementSet("labels", tuple(items), classes=CLASSES)


def as_pairs(ratings, seed=0):
    rng, items = np.random.default_rng(seed), []
    for split in ("train", "validation"):
        for source in sorted({i.source for i in ratings.items}):
            part = [i for i in ratings.split(split).items if i.source == source]
            for a in part:
                others = [part[k] for k in rng.integers(0, len(part), 20)]
                b = next((o for o in others if abs(o.rating - a.rating) >= MIN_GAP), None)
                if b is not None and a.text != b.text:
                    chosen, rejected = (a, b) if a.rating > b.rating else (b, a)
                    items.append(PreferencePair(id=f"{a.id}-{b.id}", chosen=chosen.text, rejected=rejected.text, split=split))
    return JudgementSet("pairs", tuple(items))


class Remembered:
    """Frozen features computed once for all rows, and in `path` for all runs; how long that took is added to each row's time (CPU seconds)."""

    def __init__(self, kind, path=None):
        self.plain, self.known, self.seconds, self.path, self.n_saved = kind.of, {}, 0.0, path, 0
        if path is not None and path.exists():
            with np.load(path) as stored:
                self.known = dict(zip(stored["texts"].tolist(), torch.from_numpy(stored["vectors"]), strict=True))
                self.seconds, self.n_saved = float(stored["seconds"]), len(self.known)
        memory = self

        def of(features, texts):
            new = [t for t in dict.fromkeys(texts) if t not in memory.known]
            if new:
                for start in range(0, len(new), 2000):
                    part, started = new[start : start + 2000], time.process_time()
                    memory.known.update(zip(part, memory.plain(features, part), strict=True))
                    memory.seconds += time.process_time() - started
                    if len(part) == 2000:
                        memory.save()
            return torch.stack([memory.known[t] for t in texts]) if texts else torch.zeros(0, features.size)

        kind.of = of

    def save(self):
        if self.path is not None and len(self.known) > self.n_saved:
            vectors = torch.stack(list(self.known.values())).numpy()
            aside = self.path.with_suffix(".new.npz")
            np.savez(aside, texts=np.array(list(self.known)), vectors=vectors, seconds=self.seconds)
            aside.replace(self.path)
            self.n_saved = len(self.known)


def quality(scores, ratings):
    """Return every figure on the test split with its bootstrap interval; line and threshold come from the validation split."""
    known, held_out = scores["validation"], ratings["validation"]
    line = np.polyfit(known, held_out, 1)
    cuts = np.quantile(known, np.linspace(0.02, 0.98, 97))
    cut = max(cuts, key=lambda c: classification((known > c).astype(int), (held_out > 0).astype(int), 2)["f1"])

    def figures(rows):
        predicted, wanted = scores["test"][rows], ratings["test"][rows]
        found = agreement(predicted, wanted)
        found["mse"] = float(np.mean((np.polyval(line, predicted) - wanted) ** 2))
        found["f1"] = classification((predicted > cut).astype(int), (wanted > 0).astype(int), 2)["f1"]
        return found

    n = len(ratings["test"])
    whole = figures(np.arange(n))
    rng = np.random.default_rng(0)
    drawn = [figures(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)]
    return {name: [value, *np.percentile([d[name] for d in drawn], [2.5, 97.5])] for name, value in whole.items()}


def measured(row, data, n_train, minutes, memories):
    label, scorer, loss, options, *more = row
    kinds = {"bradley-terry": "pairs", "cross-entropy": "labels", "ordinal": "labels", "multi-task": "aspects"}
    settings = FitSettings(scorer=options, max_minutes=minutes if scorer == "transformer" else None, **(more[0] if more else {}))
    started = time.process_time()
    before = {memory: memory.seconds for memory in memories.values()}
    result = fit_reward_model(data[kinds.get(loss, "ratings")], scorer=scorer, loss=loss, settings=settings)
    seconds = time.process_time() - started
    memory = memories.get({"embedding": "embedding", "mlp": "embedding", "lm-linear": "lm"}.get(scorer, ""))
    if memory is not None:  # as if computed for this row alone
        seconds += before[memory]
    parts = {name: data["ratings"].split(name).items for name in ("validation", "test")}
    scores = {name: result.reward.score_texts([i.text for i in items]) for name, items in parts.items()}
    ratings = {name: np.array([i.rating for i in items]) for name, items in parts.items()}
    spent = {name: memory.seconds for name, memory in memories.items()}  # what is timed below belongs to no row's fit
    timed = [i.text + " " for i in parts["test"][:400]]  # a space: not among the remembered
    result.reward.score_texts(["The first text loads the model."])
    for remembered in memories.values():
        for text in timed:
            remembered.known.pop(text, None)
    started = time.process_time()
    result.reward.score_texts(timed)
    speed = len(timed) / (time.process_time() - started)
    for name, remembered in memories.items():
        remembered.seconds = spent[name]
    found = quality(scores, ratings)
    return {"scorer": label, "loss": loss, "train": n_train, "epochs": len(result.history), "seconds": seconds, "speed": speed, **found}


def stack(names, ratings):
    """Print every reward alone, all of them together, and one rater beside them, on the test split."""
    items = {split: ratings.split(split).items for split in ("validation", "test")}
    wanted = {split: np.array([i.rating for i in part]) for split, part in items.items()}
    columns = {}
    for name in names:
        reward = textgym.make_reward(name)
        columns[name] = {split: np.array(reward.score([textgym.Episode("", i.text) for i in part])) for split, part in items.items()}
    design = {split: np.stack([c[split] for c in columns.values()] + [np.ones(len(wanted[split]))], 1) for split in wanted}
    weights = np.linalg.lstsq(design["validation"], wanted["validation"], rcond=None)[0]
    together = {split: design[split] @ weights for split in wanted}
    print("| reward | Pearson | Spearman | MSE | F1 |\n|---|---|---|---|---|")
    for name, scores in [*columns.items(), ("together " + " ".join(f"{w:.2f}" for w in weights), together)]:
        found = quality(scores, wanted)
        print(f"| {name} | " + " | ".join("{:.3f} [{:.3f}, {:.3f}]".format(*found[k]) for k in ("pearson", "spearman", "mse", "f1")) + " |")
    best = max(columns, key=lambda name: np.corrcoef(columns[name]["validation"], wanted["validation"])[0, 1])
    rng, n = np.random.default_rng(0), len(wanted["test"])
    gains = []
    for _ in range(N_RESAMPLES):
        rows = rng.integers(0, n, n)
        both = [np.corrcoef(scores["test"][rows], wanted["test"][rows])[0, 1] for scores in (together, columns[best])]
        gains.append(both[0] - both[1])
    print("together against {}: {:+.4f} [{:+.4f}, {:+.4f}] Pearson".format(best, np.mean(gains), *np.percentile(gains, [2.5, 97.5])))
    print("one rater: {:.3f} [{:.3f}, {:.3f}] Pearson over {} texts".format(*one_rater(items["test"])))


def one_rater(items, n_draws=200):
    """Return mean and range over draws of one rater a text, against the mean of the text's other raters; and the number of texts."""
    several = [np.array(i.ratings) for i in items if len(i.ratings) > 1]
    rng, found = np.random.default_rng(0), []
    for _ in range(n_draws):
        one = np.array([r[rng.integers(len(r))] for r in several])
        others = np.array([(r.sum() - o) / (len(r) - 1) for r, o in zip(several, one, strict=True)])
        found.append(np.corrcoef(one, others)[0, 1])
    return np.mean(found), *np.percentile(found, [2.5, 97.5]), len(several)


def curve(folder, ratings, only, features, wanted):
    """Measure Pearson on the test split by number of training sentences, and draw it."""
    from matplotlib.figure import Figure

    memory = Remembered(SentenceEmbeddings, features)
    folder.mkdir(parents=True, exist_ok=True)
    n_train = len(ratings.split("train"))
    sizes = [n for n in wanted if n < n_train] + [n_train] * (max(wanted) >= max(CURVE_SIZES))
    shown = set()
    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    axis = drawn.subplots()
    for scorer in ("tfidf", "mlp"):
        path = folder / f"{scorer}.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        for size in sizes if only in scorer else ():  # the draws of one size do not depend on the other sizes
            if str(size) in stored:
                continue
            model = fit_reward_model(sample(ratings, 100), scorer=scorer).reward  # what is refitted: all defaults
            found = learning_curve(model, ratings, (10, size), n_draws=3)
            stored[str(size)] = found.values[1].tolist()
            path.write_text(json.dumps(stored) + "\n")
            memory.save()
        if not stored:
            continue
        known = sorted(map(int, stored))
        shown.update(known)
        found = LearningCurve("pearson", tuple(known), np.array([stored[str(n)] for n in known]))
        for size, estimate in zip(found.sizes, found.estimates, strict=True):
            print(f"{scorer} {size:>6,} {estimate}")
        (line,) = axis.plot(found.sizes, found.values.mean(1), "o-", label={"mlp": "mlp on sentence embeddings"}.get(scorer, scorer))
        axis.fill_between(found.sizes, found.values.min(1), found.values.max(1), color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(xscale="log", xlabel="training sentences", ylabel="Pearson with the mean rating, test split", xticks=sorted(shown))
    axis.set_xticklabels([f"{n:,}" for n in sorted(shown)], fontsize=8)
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    drawn.savefig(folder / "learning-curve.png", dpi=120)


def table(rows):
    lines = [
        "| scorer | loss | training sentences | epochs | Pearson | Spearman | MSE | F1 | fit, CPU s | texts/CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r[k][0]:.3f} [{r[k][1]:.3f}, {r[k][2]:.3f}]" for k in ("pearson", "spearman", "mse", "f1")]
        lines.append(
            f"| {r['scorer']} | {r['loss']} | {r['train']:,} | {r['epochs']} | {' | '.join(cells)} | {r['seconds']:.0f} | {r['speed']:,.0f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, help="training sentences; default all")
    parser.add_argument("--only", default="", help="rows whose scorer or loss contains this")
    parser.add_argument("--minutes", type=float, default=4.0, help="for a transformer: no epoch begins that would end later")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stack", nargs="+", metavar="REWARD", help="measure finished rewards, alone and together, and fit nothing")
    parser.add_argument("--curve", type=Path, metavar="FOLDER", help="draw agreement over the number of training sentences")
    parser.add_argument("--sizes", help="of the curve; what is known of others is drawn, too; default 50 to all")
    parser.add_argument("--features", type=Path, metavar="FILE.npz", help="keep sentence embeddings there from run to run")
    parser.add_argument("--out", default="reward_modeling.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ratings = load_judgements("human-ratings")
    if arguments.stack:
        stack(arguments.stack, ratings)
        return
    if arguments.curve:
        wanted = tuple(map(int, arguments.sizes.split(","))) if arguments.sizes else CURVE_SIZES
        curve(arguments.curve, ratings, arguments.only, arguments.features, wanted)
        return
    if arguments.train:
        few = sample(ratings, arguments.train)
        ratings = replace(ratings, items=few.split("train").items + ratings.split("validation").items + ratings.split("test").items)
    data = {"ratings": ratings, "labels": as_labels(ratings), "pairs": as_pairs(ratings), "aspects": with_aspects(ratings)}
    memories = {"embedding": Remembered(SentenceEmbeddings, arguments.features), "lm": Remembered(HiddenStates)}
    path = Path(arguments.out)
    done = json.loads(path.read_text()) if path.exists() else []
    n_train = len(ratings.split("train"))
    for row in ROWS:
        if (
            any((d["scorer"], d["loss"], d["train"]) == (row[0], row[2], n_train) for d in done)
            or arguments.only not in f"{row[0]} {row[2]}"
        ):
            continue
        done.append(measured(row, data, n_train, arguments.minutes, memories))
        path.write_text(json.dumps(done, indent=1))
        memories["embedding"].save()
        print(table(done[-1:]).splitlines()[-1], flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
