"""The bundled language model "reviews": its tokenizer, its training, its list of tokens never to be sampled, and its figures.

Usage: OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python tools/train_reviews_lm.py [--steps 9000] [--out FOLDER]

Trains a small GPT-2 on the training split of the human ratings: byte-level BPE on that split, many small steps (about 600 tokens each),
dropout, an average of the weights (EMA), the best average on the validation split kept. The folder is written aside and then renamed, so it
always holds a whole model. `figures.json` beside the weights holds what the model card states.
"""

import argparse
import json
import math
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from textgym.reward_modeling.data.reading import read_judgements

ROOT = Path(__file__).resolve().parents[1] / "plugins/textgym_plugins"
RATINGS = ROOT / "data/human_ratings/human_ratings.jsonl.gz"
CONTRACTIONS = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}
WORD = re.compile(r"[a-z']+")
SEED = 0


def sentences() -> dict[str, list[str]]:
    """Return the texts of each split."""
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for item in read_judgements(RATINGS).items:
        texts[item.split].append(item.text)
    return texts


def make_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which a sentence's first word is the same token as in its middle; texts begin with <|endoftext|>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, clean_up_tokenization_spaces=False, **ends)


def never_sampled(tokenizer: Any, texts: list[str]) -> list[int]:
    """Return the ids of word pieces: what is not a whole word, number or mark of the training texts, so that no word is made up."""
    backend = tokenizer.backend_tokenizer
    whole: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for text in texts:
        for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text):
            whole[piece] += 1
        used.update(backend.encode(text, add_special_tokens=False).tokens)
    byte_of = {c: b for b, c in bytes_to_characters().items()}
    banned = []
    for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token == "<|endoftext|>":
            continue
        try:
            text = bytes(byte_of[c] for c in token).decode() if token != "<pad>" else None
        except (UnicodeDecodeError, KeyError):
            text = None
        letters = text is not None and any(c.isalpha() for c in text)
        if text is None or "\n" in text or "\r" in text:
            keep = False
        elif letters and not text.startswith(" "):  # after a hyphen or a quote, or a contraction's end
            keep = token in CONTRACTIONS or (whole[token] >= 3 and whole[token] >= 0.7 * used[token])
        elif letters:
            keep = whole[token] >= 2
        else:
            keep = whole[token] >= 2
        if not keep:
            banned.append(i)
    return banned


def bytes_to_characters() -> dict[int, str]:
    """Return the printable stand-in of each byte in a byte-level vocabulary (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {b: chr(b) for b in plain}
    for n, b in enumerate(b for b in range(256) if b not in plain):
        table[b] = chr(256 + n)
    return table


def batches(ids: list[list[int]], tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Return lists of sentence numbers, similar lengths together, about `tokens` padded tokens each, in random order."""
    lengths = np.array([len(i) for i in ids])
    order = np.argsort(lengths + rng.uniform(-3, 3, len(ids)), kind="stable")
    found: list[list[int]] = [[]]
    for i in order:
        if found[-1] and (len(found[-1]) + 1) * max(lengths[i], *lengths[found[-1]]) > tokens:
            found.append([])
        found[-1].append(int(i))
    return [found[i] for i in rng.permutation(len(found))]


def loss_sum(model: Any, ids: list[list[int]]) -> tuple[torch.Tensor, int]:
    """Return the summed negative log-likelihood (nats) of sentences that begin and end with <|endoftext|>, and the number of tokens."""
    width = max(map(len, ids))
    padded = torch.tensor([i + [0] * (width - len(i)) for i in ids])
    mask = torch.tensor([[1.0] * (len(i) - 1) + [0.0] * (width - len(i)) for i in ids])
    logits = model(input_ids=padded[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), padded[:, 1:].reshape(-1), reduction="none")
    return (losses * mask.reshape(-1)).sum(), int(mask.sum())


@torch.no_grad()
def nats(model: Any, ids: list[list[int]]) -> tuple[float, int]:
    """Return the total negative log-likelihood and number of tokens of a split."""
    total, n = 0.0, 0
    for batch in batches(ids, 4000, np.random.default_rng(0)):
        loss, tokens = loss_sum(model, [ids[i] for i in batch])
        total, n = total + float(loss), n + tokens
    return total, n


@torch.no_grad()
def samples(model: Any, tokenizer: Any, n: int, banned: list[int], temperature: float, seed: int) -> list[str]:
    """Return n texts sampled from the beginning."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(n, 1, dtype=torch.long)
    for _ in range(40):
        logits = model(input_ids=ids).logits[:, -1] / temperature
        logits[:, banned] = -torch.inf
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
    texts = []
    for row in ids[:, 1:].tolist():
        texts.append(tokenizer.decode(row[: row.index(0)] if 0 in row else row))
    return texts


def word_share(texts: list[str], dictionary: set[str]) -> float:
    """Return the share of the texts' words that are in the dictionary."""
    words = [w for text in texts for w in WORD.findall(text.lower())]
    return sum(w in dictionary for w in words) / len(words)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--out", type=Path, default=ROOT / "models/reviews")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    texts = sentences()
    tokenizer: Any = make_tokenizer(texts["train"], options.vocabulary)
    ids = {split: [[*i[:127], 0] for i in tokenizer(split_texts)["input_ids"]] for split, split_texts in texts.items()}
    characters = {split: sum(map(len, split_texts)) for split, split_texts in texts.items()}
    banned = never_sampled(tokenizer, texts["train"])
    sizes = {"n_embd": options.width, "n_layer": options.layers, "n_head": max(2, options.width // 48), "n_positions": 128}
    drop = {"resid_pdrop": options.dropout, "embd_pdrop": options.dropout, "attn_pdrop": options.dropout}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, pad_token_id=1, **sizes, **drop)
    model: Any = GPT2LMHeadModel(config)
    average: Any = GPT2LMHeadModel(config).eval()
    average.load_state_dict(model.state_dict())
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)
    corpus = {w for split_texts in texts.values() for t in split_texts for w in WORD.findall(t.lower())}
    counts = Counter(w for t in texts["train"] for w in WORD.findall(t.lower()))
    twice = {w for w, c in counts.items() if c >= 2}
    step, best, start, queue = 0, math.inf, time.time(), []
    while step < options.steps:
        queue = queue or batches(ids["train"], options.tokens, rng)
        share = step / options.steps
        rate = options.learning_rate * min(1.0, step / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.train()
        loss, n = loss_sum(model, [ids["train"][i] for i in queue.pop()])
        optimizer.zero_grad()
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        weight = 1 - min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(p, weight)
        if step % 750 == 0 or step == options.steps:
            total, tokens = nats(average, ids["validation"])
            bits = total / math.log(2) / characters["validation"]
            print(
                f"step {step} {time.time() - start:.0f} s: validation {bits:.4f} bits per character, perplexity {math.exp(total / tokens):.1f}",
                flush=True,
            )
            if bits < best:
                best = bits
                drawn = samples(average, tokenizer, 400, banned, 0.9, SEED)
                figures = {
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "vocabulary": len(tokenizer),
                    "never_sampled": len(banned),
                    "steps": step,
                    "options": {k: v for k, v in vars(options).items() if k != "out"},
                    "validation_bits_per_character": round(bits, 4),
                    "validation_perplexity": round(math.exp(total / tokens), 1),
                    "dictionary_share": round(word_share(drawn, corpus), 4),
                    "train_twice_share": round(word_share(drawn, twice), 4),
                    "dictionary_share_unmasked": round(word_share(samples(average, tokenizer, 400, [1], 0.9, SEED), corpus), 4),
                    "samples": drawn[:20],
                }
                write(options.out, average, tokenizer, banned, figures)
    print(json.dumps(figures, indent=1))


def write(out: Path, average: Any, tokenizer: Any, banned: list[int], figures: dict[str, Any]) -> None:
    """Write model, tokenizer and figures aside, then put the folder in place; the model card stays."""
    aside = out.with_name(f".{out.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    shipped: Any = GPT2LMHeadModel(GPT2Config(**{**average.config.to_dict(), "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}))
    shipped.load_state_dict(average.state_dict())
    shipped.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=1, suppress_tokens=banned)
    shipped.half().save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    (aside / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if (out / "README.md").is_file():
        shutil.copy(out / "README.md", aside)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    main()
