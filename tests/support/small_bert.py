"""A small BERT made on the spot, as a model of sentence-transformers."""

from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?é字"
LONGEST = 24  # tokens


def made(folder: Path, **changed: Any) -> Any:
    """A SentenceTransformer of two layers with weights of chance, in float32."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(str(folder))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        hidden_act=changed.pop("hidden_act", "gelu"),
    )
    BertModel(config).save_pretrained(str(folder))
    mode = changed.pop("pooling", "mean")
    transformer = Transformer(str(folder), max_seq_length=LONGEST)
    modules = [transformer, Pooling(32, pooling_mode=mode), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu", **changed)
