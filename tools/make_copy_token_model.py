"""The folder of the "copy-token" model: a tiny GPT-2 configuration and a word-level tokenizer, no weights.

Usage: python tools/make_copy_token_model.py
"""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, PreTrainedTokenizerFast

TARGET = Path(__file__).resolve().parents[1] / "plugins/textgym_plugins/models/copy_token"
SYMBOLS = "abcdefgh"

if __name__ == "__main__":
    words = ["<pad>", "<eos>", "<unk>", *SYMBOLS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=8)
    fast.save_pretrained(TARGET)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 8}
    GPT2Config(
        vocab_size=len(words), bos_token_id=1, eos_token_id=1, pad_token_id=0, architectures=["GPT2LMHeadModel"], **sizes
    ).save_pretrained(TARGET)
