"""What a technique adds to a reward model: paired differences to the plain fit on the bundled human ratings.

Usage: python benchmarks/reward_effects.py FOLDER [--scorer SCORER] [--only TEXT] [--seeds N] [--minutes M] [--table]

Every technique is fitted once a seed beside a plain fit of the same seed, on the same training sentences, by `textgym`'s own settings: the
transformer (MiniLM, 22 M parameters) for two epochs on 800 sentences; "mlp" (on sentence embeddings) on all; "hashed mlp" (on hashed n-grams)
and tfidf on 4,000; each epoch is judged by 200 validation sentences. "plain, twice the steps" is the control of what doubles the training judgements. Each fit's scores of the test split are one line of
FOLDER/fits.jsonl; what stands there is not fitted again, so a run that was stopped goes on. --minutes: no fit begins later than that.

The table: Pearson with the mean rating on the test split, mean over the seeds; the difference to the plain fit, mean over the seeds, with a
95 % interval of a paired bootstrap over test sentences (2,000 resamples, seed 0; the same sentences for all seeds); and the least and the
greatest difference of a seed, because the bootstrap knows nothing of the seeds; and the difference to the control, over the seeds that both have.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from reward_modeling import Remembered, quality, with_aspects

from textgym.reward_modeling.data.augment import Paraphraser, with_dropped_words, with_mixed_texts, with_paraphrases
from textgym.reward_modeling.data.judgement_source import load_judgements
from textgym.reward_modeling.fitting.contrastive import pretrain
from textgym.reward_modeling.fitting.fit import FitSettings, fit_reward_model
from textgym.reward_modeling.scorers.features import SentenceEmbeddings
from textgym.reward_modeling.scorers.transformer import Transformer

N_TRAIN = {"transformer": 800, "hashed mlp": 4000, "tfidf": 4000}  # all, where nothing is said
N_VALIDATION = 200
MINILM = {"dtype": "bfloat16", "max_tokens": 64}
EPOCHS = 2
PRETRAINING = {"steps": 60, "batch_size": 32}  # on all training sentences, without their ratings
N_MIXED = 5000
N_RESAMPLES = 2000
CONTROL = "plain, twice the steps"

TECHNIQUES = {
    "transformer": (
        "plain",
        "LoRA, rank 8",
        "multi-task",
        "SimCSE before",
        "SimCSE beside",
        "words dropped",
        CONTROL,
        "heteroscedastic",
        "texts mixed",
        "MoCo before",
        "MoCo beside",
        "paraphrased",
    ),
    "mlp": ("plain", "heteroscedastic", "multi-task", "words dropped", "texts mixed", CONTROL),
    "hashed mlp": ("plain", "heteroscedastic", "multi-task", "words dropped", "texts mixed", CONTROL),
    "tfidf": ("plain", "words dropped", "texts mixed"),
}


def training_part(ratings, n, seed=0):
    """Return `n` training sentences (the same for every technique) and the first validation sentences of a random order."""
    rng, kept = np.random.default_rng(seed), []
    for split, size in (("train", n), ("validation", N_VALIDATION)):
        part = ratings.split(split).items
        kept += [part[row] for row in sorted(rng.permutation(len(part))[:size].tolist())]
    return replace(ratings, items=tuple(kept))


def paraphrased(data, seed, folder):
    """Return the data with paraphrases of half of the training texts; a judge that was fitted to the same texts refuses those it rates anew."""
    path = folder / f"paraphrases-{seed}.json"
    if not path.exists():
        judge = fit_reward_model(data, scorer="tfidf").reward
        more = with_paraphrases(data, Paraphraser(judge=judge.score_texts), share=0.5, seed=seed)
        path.write_text(json.dumps([[i.metadata["from"], i.text] for i in more.items[len(data.items) :]]))
    by_id = {item.id: item for item in data.items}
    new = [replace(by_id[id_], id=f"{id_}~p", text=text) for id_, text in json.loads(path.read_text())]
    return replace(data, items=(*data.items, *new))


def fitted(scorer, technique, seed, data, all_texts, folder):
    """Return the fitted reward and the number of training judgements."""
    loss, options, more, prepared = "squared-error", {}, {}, None
    if scorer == "hashed mlp":
        scorer, options = "mlp", {"features": "hashed"}
    n = len(data.split("train"))
    if scorer == "transformer":
        options, more = dict(MINILM), {"epochs": EPOCHS}
    if technique == "heteroscedastic":
        loss = "heteroscedastic"
    elif technique == "multi-task":
        loss, data = "multi-task", with_aspects(data)
    elif technique == "LoRA, rank 8":
        options["lora_rank"] = 8
        more["learning_rate"] = 1e-3  # few weights, and all of them start at no effect
    elif technique.endswith(" before"):
        torch.manual_seed(seed)
        prepared = Transformer(1, **options)
        pretrain(prepared, all_texts, method=technique.split()[0].lower(), seed=seed, **PRETRAINING)
    elif technique.endswith(" beside"):
        more["contrastive"] = technique.split()[0].lower()
    elif technique == "words dropped":
        data = with_dropped_words(data, seed=seed)
    elif technique == "texts mixed":
        data = with_mixed_texts(data, min(n, N_MIXED), seed=seed)
    elif technique == "paraphrased":
        data = paraphrased(data, seed, folder)
    elif technique == CONTROL:
        more["epochs"] = 2 * (EPOCHS if scorer == "transformer" else 20)
        more["patience"] = more["epochs"]
    settings = FitSettings(seed=seed, scorer=options, **more)
    result = fit_reward_model(data, scorer=scorer, loss=loss, settings=settings, prepared_scorer=prepared)
    return result, len(data.split("train"))


def run(folder, scorers, only, n_seeds, minutes):
    ratings = load_judgements("human-ratings")
    all_texts = [item.text for item in ratings.split("train").items]
    memory = Remembered(SentenceEmbeddings, folder / "embeddings.npz") if "mlp" in scorers else None
    path, started = folder / "fits.jsonl", time.perf_counter()
    for seed in range(n_seeds):
        for scorer in scorers:
            data = training_part(ratings, N_TRAIN.get(scorer, len(ratings.split("train"))))
            for technique in TECHNIQUES[scorer]:
                if only not in technique or (scorer == "tfidf" and technique == "plain" and seed):  # solved: no seed
                    continue
                if any((r["scorer"], r["technique"], r["seed"]) == (scorer, technique, seed) for r in read(folder)):
                    continue
                if time.perf_counter() - started > 60 * minutes:
                    return
                before = time.process_time()
                result, n = fitted(scorer, technique, seed, data, all_texts, folder)
                seconds = time.process_time() - before
                scores = {}
                before = time.process_time()
                for split, items in (("validation", data.split("validation").items), ("test", ratings.split("test").items)):
                    found = result.reward.score_texts([i.text for i in items])
                    scores[split] = np.round(found, 5).tolist()
                speed = sum(map(len, scores.values())) / (time.process_time() - before)
                line = {"scorer": scorer, "technique": technique, "seed": seed, "judgements": n, "epochs": len(result.history)}
                line |= {"cpu_seconds": round(seconds, 1), "speed": None if memory else round(speed), "scores": scores}
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                wanted = [i.rating for i in ratings.split("test").items]
                print(scorer, technique, seed, n, f"{np.corrcoef(scores['test'], wanted)[0, 1]:.4f}", f"{seconds:.0f} s", flush=True)
                if memory:
                    memory.save()


def read(folder):
    path = folder / "fits.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gain(values, others):
    """Return the mean difference with its interval, and the range over the seeds, of (seeds, resamples)."""
    gains = values - np.stack(others)
    low, high = np.percentile(gains.mean(0)[1:], [2.5, 97.5])
    return f"{gains[:, 0].mean():+.3f} [{low:+.3f}, {high:+.3f}]", f"{gains[:, 0].min():+.3f} to {gains[:, 0].max():+.3f}"


def table(folder):
    """Print what was gained, and the figures of every technique's first seed."""
    ratings = load_judgements("human-ratings")
    parts = {"validation": training_part(ratings, N_TRAIN["transformer"]).split("validation"), "test": ratings.split("test")}
    wanted = {split: np.array([i.rating for i in part.items]) for split, part in parts.items()}
    fits = {(r["scorer"], r["technique"], r["seed"]): r for r in read(folder)}
    n = len(wanted["test"])
    draws = [np.arange(n), *np.random.default_rng(0).integers(0, n, (N_RESAMPLES, n))]

    def pearson(fit):  # of the test split as it is, then of every resample
        scores = np.array(fit["scores"]["test"])
        return np.array([np.corrcoef(scores[rows], wanted["test"][rows])[0, 1] for rows in draws])

    known = {key: pearson(fit) for key, fit in fits.items()}
    lines = [f"| scorer | technique | judgements | seeds | Pearson | against plain | seeds' differences | against {CONTROL} |"]
    lines.append("|---" * 8 + "|")
    for scorer, techniques in TECHNIQUES.items():
        for technique in techniques:
            seeds = sorted(s for a, b, s in fits if (a, b) == (scorer, technique))
            if not seeds:
                continue
            values = np.stack([known[scorer, technique, s] for s in seeds])  # (seeds, resamples)
            cells = [
                scorer,
                technique,
                f"{fits[scorer, technique, seeds[0]]['judgements']:,}",
                str(len(seeds)),
                f"{values[:, 0].mean():.3f}",
            ]
            if technique == "plain":
                cells += ["", f"{values[:, 0].min():.3f} to {values[:, 0].max():.3f}", ""]
            else:
                plain = [known.get((scorer, "plain", s), known[scorer, "plain", 0]) for s in seeds]
                both = [i for i, s in enumerate(seeds) if (scorer, CONTROL, s) in known and technique != CONTROL]
                control = gain(values[both], [known[scorer, CONTROL, seeds[i]] for i in both])[0] if both else ""
                cells += [*gain(values, plain), control]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| scorer | technique | Pearson | Spearman | MSE | F1 | fit, CPU s | texts/CPU s |", "|---|---|---|---|---|---|---|---|"]
    for (scorer, technique, seed), fit in fits.items():
        if seed == 0 and scorer == "transformer":
            found = quality({k: np.array(v) for k, v in fit["scores"].items()}, wanted)
            cells = [f"{found[k][0]:.3f} [{found[k][1]:.3f}, {found[k][2]:.3f}]" for k in ("pearson", "spearman", "mse", "f1")]
            lines.append(f"| {scorer} | {technique} | {' | '.join(cells)} | {fit['cpu_seconds']:.0f} | {fit['speed'] or '–'} |")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scorer", choices=TECHNIQUES, help="default all")
    parser.add_argument("--only", default="", help="techniques that contain this")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--table", action="store_true", help="fit nothing, show what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        for scorer in [arguments.scorer] if arguments.scorer else TECHNIQUES:
            run(arguments.folder, [scorer], arguments.only, arguments.seeds, arguments.minutes)
    table(arguments.folder)


if __name__ == "__main__":
    main()
