"""Tiny GPT-2 and Llama type models with dropout in their configuration, and tasks on them."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import textgym

WORDS = ["<pad>", "<eos>", *(f"w{i}" for i in range(20))]


def _tokenizer():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=64)


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if request.param == "gpt2":
        drop = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **drop, **ends)
        )
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=64, attention_dropout=0.1, initializer_range=0.3, **sizes, **ends)
        )
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task(model_folder):
    prompts = [" ".join(f"w{(7 * i + j) % 20}" for j in range(1 + i % 5)) for i in range(12)]
    return textgym.Task(
        "Words-v0",
        {"train": prompts, "validation": prompts[:3]},
        model_folder,
        9,
        lambda episodes: [len(e.continuation) / 10 + ("w3" in e.continuation) for e in episodes],
    )
