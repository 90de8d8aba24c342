"""The fixed offline data: texts for prompts of four tasks by several writers, with the task's reward.

Usage: python tools/make_offline_texts.py [NAME ...]

A set is written pass by pass: in each pass a writer continues one prompt after the other - "reference" is the task's first reference, which
the task's model can say, the others are bundled agents. The texts are then read back as an agent that learns from the file reads them, and
their rewards are those of what was read; a text that was drawn as other tokens than the tokenizer makes of it is left out, unless its tokens
were random. Prints how many texts each writer has, and their mean reward, for the README.
"""

import sys

import numpy as np
from textgym_plugins.offline_texts import SETS, offline_file

import textgym
from textgym.learning.given_texts import reference_texts, side_environment
from textgym.policies.generation import replay
from textgym.reward_modeling.data.judgements import JudgementSet, RatedText
from textgym.reward_modeling.data.writing import write_judgements

SEED = 0
PROMPTS = {"review-continuation-offline": 1200, "review-classification-offline": 2500}  # drawn from the training split; else all
PASSES = {
    "copy-token-offline": [("reference", 1, 1.0), ("random", 16, 1.0)],
    "token-chain-offline": [("random", 10, 1.0)],
    "review-classification-offline": [("base", 1, 1.0), ("random", 1, 1.0)],
    "review-continuation-offline": [("reference", 1, 1.0), ("base", 2, 1.0), ("random", 1, 0.1)],
}
"""Set → writer, passes, share of the prompts that it continues."""


def written(name: str) -> JudgementSet[RatedText]:
    """Return the set."""
    task, passes = SETS[name], PASSES[name]
    agents = {writer: textgym.make_agent(writer, task, seed=SEED, device="cpu") for writer, _, _ in passes if writer != "reference"}
    mdp = side_environment(next(iter(agents.values())).env.mdp)
    rng = np.random.default_rng(SEED)
    suitable = np.arange(mdp.n_prompts)
    references = {}
    if passes[0][0] == "reference":
        references = {t.info["prompt"]: t for t in reference_texts(mdp)}
        suitable = np.array([i for i, p in enumerate(mdp.prompt_set.prompts) if p.text in references])
    prompts = np.sort(rng.permutation(suitable)[: PROMPTS.get(name)])
    (end,) = mdp.vocabulary.tokenizer.batch_decode([[min(mdp.vocabulary.eos_ids)]])
    items = []
    for writer, n_passes, share in passes:
        for _ in range(n_passes):
            part = prompts[: round(share * len(prompts))].tolist()
            texts = [references[mdp.prompt_set.prompts[i].text] for i in part] if references and writer == "reference" else []
            texts = texts or agents[writer].write(mdp, part, rng)
            given = [t.info["continuation"] or f" {end}" for t in texts]  # an empty text is spelt as the end
            for text, again, continuation in zip(texts, replay(mdp, part, given), given, strict=True):
                same = np.array_equal(text.action_ids, again.action_ids) or writer == "random"
                if not same or not continuation.startswith(again.info["continuation"]) or not continuation.strip():
                    continue
                items.append(
                    RatedText(
                        id=f"{writer}-{len(items)}",
                        prompt=text.info["prompt"],
                        text=continuation,
                        rating=round(float(again.rewards.sum()), 4),
                        source=writer,
                        split="train",
                        metadata={"reward": mdp.reward.name},
                    )
                )
    return JudgementSet("ratings", tuple(items))


def main() -> None:
    """Write the sets named, all by default, and say what is in them."""
    for name in sys.argv[1:] or SETS:
        found = written(name)
        file = offline_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_judgements(found, file)
        print(f"{file.name}: {len(found)} texts, {file.stat().st_size:,} bytes")
        for writer in dict.fromkeys(item.source for item in found.items):
            ratings = [item.rating for item in found.items if item.source == writer]
            print(f"  {writer}: {len(ratings)} texts, mean reward {np.mean(ratings):.3f}")


if __name__ == "__main__":
    main()
