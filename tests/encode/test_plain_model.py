"""A model whose files say nothing unknown is computed without the libraries, to the same vectors and
revision; any other is left to them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_flywheel.encode.bert_encoder import BertEncoder
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encode.numpy_bert import NumpyBert
from rag_flywheel.encode.plain_model import read_plain_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.encode.tower import require_tunable
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.errors import CorruptFileError, EncoderError
from small_bert import made

TEXTS = [
    "a query",
    "",
    " \t\n ",
    "UPPER lower ÜNÏCÖDÉ",
    "Привет мир, 日本語 と 한국어, שלום",
    "\u200d字\u0301🙂\x00",
    "[CLS] [SEP] [MASK] [PAD] [UNK] ##a",
    "word " * 100,
    "x" * 300,
    *(f"text number {i} " + "of many words " * (i % 7) for i in range(20)),
]
pytestmark = pytest.mark.slow  # torch and the library take seconds to load


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as the library saves it now."""
    folder = tmp_path_factory.mktemp("plain")
    made(folder / "made").save(str(folder / "saved"))
    return folder / "saved"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | values), encoding="utf-8")


def as_published_once(folder: Path) -> None:
    """The files as earlier releases of the libraries wrote them."""
    kinds = ("Transformer", "Pooling", "Normalize")
    parts = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
         "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(parts), encoding="utf-8")
    shutil.rmtree(folder / "2_Normalize")
    (folder / "config_sentence_transformers.json").write_text('{"__version__": {}}')
    modes = ("cls_token", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {f"pooling_mode_{mode}": False for mode in modes}
    pooling |= {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 16, "do_lower_case": false}'
    )
    words = ("pad", "unk", "cls", "sep", "mask")
    named = {f"{word}_token": f"[{word.upper()}]" for word in words}
    (folder / "special_tokens_map.json").write_text(json.dumps(named), encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n")
    special = {
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
        "normalized": False,
        "special": True,
    }
    settings = {
        **named,
        "added_tokens_decoder": {
            str(i): {"content": f"[{word.upper()}]", **special} for i, word in enumerate(words)
        },
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512,
        "max_length": 128, "stride": 0, "truncation_side": "right", "truncation_strategy": "longest_first",
        "never_split": None, "strip_accents": None, "tokenize_chinese_chars": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    change(folder / "config.json", position_embedding_type="absolute", use_cache=True)


@pytest.mark.parametrize("form", ["saved", "published once"])
def test_vectors_tokens_and_revision_are_the_librarys(folder: Path, form: str) -> None:
    if form == "published once":
        as_published_once(folder)
    ours, library = (
        make_encoder(f"sentence-transformers:{folder}"),
        SentenceEncoder.load(str(folder)),
    )
    assert isinstance(ours, BertEncoder)
    assert (ours.name, ours.revision, ours.dim) == (library.name, library.revision, library.dim)
    assert ours.max_tokens == library.max_tokens == (24 if form == "saved" else 16)
    assert ours.count_tokens(TEXTS) == library.count_tokens(TEXTS)
    np.testing.assert_array_equal(ours.encode_queries(TEXTS), library.encode_queries(TEXTS))
    np.testing.assert_array_equal(ours.encode_passages(TEXTS), library.encode_passages(TEXTS))
    assert ours.encode_queries([]).shape == ours.encode_passages([]).shape == (0, 32)
    plain = read_plain_model(folder)
    assert plain is not None
    exact = BertEncoder(plain, folder, name="exact", bf16=False).encode_queries(TEXTS)
    wanted = library.model.encode(TEXTS, normalize_embeddings=True)
    assert (exact * wanted).sum(axis=1).min() >= 0.99999
    assert np.abs(exact - wanted).max() <= 1e-6
    assert len(np.unique(exact.round(4), axis=0)) > 20  # they are not all the same


def _tokenizer(change_it: Callable[[Any], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        change_it(found)
        path.write_text(json.dumps(found), encoding="utf-8")

    return changed


def _file(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, **values)


def _modules(change_it: Callable[[Any], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        found = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        change_it(found)
        (folder / "modules.json").write_text(json.dumps(found), encoding="utf-8")

    return changed


def _weights(change_it: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        found = load_file(folder / "model.safetensors")
        change_it(found)
        save_file(found, folder / "model.safetensors")

    return changed


OTHERS: dict[str, Callable[[Path], object]] = {
    "another activation": _file("config.json", hidden_act="relu"),
    "another kind of position": _file("config.json", position_embedding_type="relative_key"),
    "a decoder": _file("config.json", is_decoder=True),
    "another class": _file("config.json", architectures=["BertForMaskedLM"]),
    "another type": _file("config.json", model_type="distilbert"),
    "half precision": _file("config.json", dtype="bfloat16"),
    "an unknown setting": _file("config.json", rope_theta=10_000),
    "heads that do not divide": _file("config.json", num_attention_heads=5),
    "no heads": _file("config.json", num_attention_heads=0),
    "a size that is no number": _file("config.json", hidden_size="32"),
    "more layers than weights": _file("config.json", num_hidden_layers=3),
    "very many layers": _file("config.json", num_hidden_layers=10**9),
    "fewer layers than weights": _file("config.json", num_hidden_layers=1),
    "another width of layers": _file("config.json", intermediate_size=32),
    "another pooling": _file("1_Pooling/config.json", pooling_mode="cls"),
    "two poolings": _file("1_Pooling/config.json", pooling_mode=["mean", "max"]),
    "a pooling without the prompt": _file("1_Pooling/config.json", include_prompt=False),
    "an unknown pooling": _file("1_Pooling/config.json", temperature=2),
    "normalized tokens": _file("2_Normalize/config.json", module_input_name="token_embeddings"),
    "a prompt": _file("config_sentence_transformers.json", prompts={"query": "query: "}),
    "a default prompt": _file("config_sentence_transformers.json", default_prompt_name="query"),
    "shorter vectors": _file("config_sentence_transformers.json", truncate_dim=16),
    "lower case by the library": _file("sentence_bert_config.json", do_lower_case=True),
    "another task": _file("sentence_bert_config.json", transformer_task="fill-mask"),
    "a length for queries": _file("sentence_bert_config.json", query_length=8),
    "a length beyond the positions": _file("sentence_bert_config.json", max_seq_length=65),
    "a length without room for a text": _file("sentence_bert_config.json", max_seq_length=2),
    "another tokenizer": _file("tokenizer_config.json", tokenizer_class="RobertaTokenizer"),
    "text cut at the left": _file("tokenizer_config.json", truncation_side="left"),
    "another token for what is unknown": _file("tokenizer_config.json", unk_token="[NO]"),
    "case by the settings alone": _file("tokenizer_config.json", do_lower_case=False),
    "accents by the settings alone": _file("tokenizer_config.json", strip_accents=False),
    "more special tokens": _file("tokenizer_config.json", extra_special_tokens={"x": "[X]"}),
    "a special token elsewhere": _file("special_tokens_map.json", cls_token="[SEP]"),
    "tokens that were added": _file("added_tokens.json", new=89),
    "settings of a processor": _file("processor_config.json", a=1),
    "another vocabulary as text": lambda f: (f / "vocab.txt").write_text("[UNK]\n[PAD]\n"),
    "a longer vocabulary as text": lambda f: (f / "vocab.txt").write_text(
        "\n".join([*json.loads((f / "tokenizer.json").read_text())["model"]["vocab"], "more"])
    ),
    "a template for chats": lambda f: (f / "chat_template.jinja").write_text("{{ x }}"),
    "case by the tokenizer alone": _tokenizer(lambda t: t["normalizer"].update(lowercase=False)),
    "another normalizer": _tokenizer(lambda t: t.update(normalizer={"type": "NFKC"})),
    "no normalizer": _tokenizer(lambda t: t.update(normalizer=None)),
    "words cut otherwise": _tokenizer(lambda t: t.update(pre_tokenizer={"type": "Whitespace"})),
    "another frame": _tokenizer(lambda t: t["post_processor"]["single"].pop()),
    "a frame of other tokens": _tokenizer(
        lambda t: t["post_processor"]["special_tokens"]["[CLS]"].update(ids=[3])
    ),
    "longer words": _tokenizer(lambda t: t["model"].update(max_input_chars_per_word=5)),
    "a gap in the vocabulary": _tokenizer(lambda t: t["model"]["vocab"].update(new=1_000)),
    "a token for words": _tokenizer(lambda t: t["added_tokens"][4].update(single_word=True)),
    "a module more": _modules(lambda m: m.append({**m[2], "idx": 3, "name": "3"})),
    "a module less": _modules(lambda m: m.pop(1)),
    "modules by other names": _modules(lambda m: m[0].update(name="encoder")),
    "a module of another kind": _modules(
        lambda m: m[1].update(type="sentence_transformers.models.WeightedLayerPooling")
    ),
    "a module's arguments": _modules(lambda m: m[0].update(kwargs=["task"])),
    "weights in half precision": _weights(
        lambda w: w.update({k: v.astype(np.float16) for k, v in w.items()})
    ),
    "no pooler": _weights(lambda w: w.pop("pooler.dense.bias")),
    "other names": _weights(lambda w: w.update({f"bert.{k}": w.pop(k) for k in list(w)})),
    "more weights": _weights(lambda w: w.update(more=np.zeros(3, np.float32))),
    "another shape": _weights(
        lambda w: w.update({"pooler.dense.bias": np.zeros((32, 1), np.float32)})
    ),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "weights cut off": lambda f: (f / "model.safetensors").write_bytes(b"\x10"),
    "no tokenizer.json": lambda f: (f / "tokenizer.json").unlink(),
    "no JSON": lambda f: (f / "config.json").write_text("{"),
    "JSON of another form": lambda f: (f / "config.json").write_text("[1]"),
    "deep JSON": lambda f: (f / "config.json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("other", OTHERS)
def test_any_other_model_is_left_to_the_library(folder: Path, other: str) -> None:
    assert read_plain_model(folder) is not None
    OTHERS[other](folder)
    assert read_plain_model(folder) is None


def test_what_is_left_to_the_library_is_encoded_by_it(folder: Path) -> None:
    change(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    found = make_encoder(f"sentence-transformers:{folder}")
    assert isinstance(found, SentenceEncoder)
    wanted = found.model.encode_query(TEXTS, normalize_embeddings=True)
    assert np.abs(found.encode_queries(TEXTS) - wanted).max() <= 1e-6


def tuned(folder: Path, path: Path) -> tuple[BertEncoder, str, Any]:
    """An encoder, and the revision of a tower whose weights are written to the path, with its vectors."""
    encoder = make_encoder(f"sentence-transformers:{folder}")
    assert isinstance(encoder, BertEncoder)
    tower = require_tunable(encoder).tower()
    rng = np.random.default_rng(0)
    tower.take(
        {n: (w + rng.normal(0, 0.3, w.shape)).astype(np.float32) for n, w in tower.weights.items()}
    )
    tower.save(path)
    return encoder, tower.revision, encoder.with_tower(tower).encode_queries(TEXTS)


def test_tuned_queries_are_those_of_the_tower(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "v" / "queries.safetensors"
    _, revision, wanted = tuned(folder, path)
    fresh = BertEncoder.of_folder(folder, name="fresh")
    assert fresh is not None
    queries = TunedQueries(fresh, path, revision)
    np.testing.assert_array_equal(queries.encode_queries(TEXTS), wanted)
    assert fresh._library is None  # it was not loaded
    assert (wanted * fresh.encode_queries(TEXTS)).sum(axis=1).max() < 0.99


def test_tuned_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = tmp_path / "v" / "queries.safetensors"
    encoder, _, _ = tuned(folder, path)
    with pytest.raises(CorruptFileError, match="its version says 0123"):
        TunedQueries(encoder, path, "0123").load()
    weights = load_file(path)
    name = min(weights)
    for other in (
        {k: v for k, v in weights.items() if k != name},
        weights | {name: weights[name][:1]},
        weights | {"0.model.pooler.dense.bias": np.zeros(32, np.float32)},
        weights | {name: weights[name] * np.nan},
    ):
        with pytest.raises(CorruptFileError):
            encoder.with_taught(other, "they")


def test_a_library_that_gives_other_vectors_does_not_tune(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(f"sentence-transformers:{folder}")
    assert isinstance(encoder, BertEncoder)
    load = SentenceEncoder.load

    def other(name: str) -> SentenceEncoder:
        found = load(name)
        layer = found.model[0].auto_model.encoder.layer[1]
        layer.register_forward_hook(lambda module, given, out: out * 1.5 + 0.1)
        return found

    monkeypatch.setattr(SentenceEncoder, "load", other)
    with pytest.raises(EncoderError, match="other vectors"):
        encoder.tower()


def test_encoding_imports_neither_library_and_a_few_queries_not_even_torch(folder: Path) -> None:
    code = (
        "import sys; from rag_flywheel.encode.make import make_encoder\n"
        "def imported():\n"
        "    names = {name.split('.')[0] for name in sys.modules}\n"
        "    print(*sorted(names & {'transformers', 'sentence_transformers', 'torch'}), end=';')\n"
        "e = make_encoder(sys.argv[1])\n"
        "e.count_tokens(['c']); e.encode_queries(['a'] * 60); e.encode_queries(['b']); imported()\n"
        "e.encode_queries(['b'] * 4); imported()\n"
        "f = make_encoder(sys.argv[1]); f.encode_passages(['b']); imported()"
    )
    assert _run(code, folder) == ";torch;torch;"


@pytest.mark.parametrize("loads", ["e.warm()", "e.encode_passages(['b'])", "import torch"])
def test_where_torch_is_there_it_computes_queries(folder: Path, loads: str) -> None:
    code = (
        "import sys; from rag_flywheel.encode.make import make_encoder\n"
        "e = make_encoder(sys.argv[1]); before = e.encode_queries(['some words'])\n"
        f"{loads}\n"
        "after = e.encode_queries(['some words']); by_torch = e._queries.bert().encode(['some words'])\n"
        "print('torch' in sys.modules, (after == by_torch).all(), (before * after).sum() > 0.999)"
    )
    assert _run(code, folder) == "True True True\n"


def _run(code: str, folder: Path) -> str:
    spec = f"sentence-transformers:{folder}"
    done = subprocess.run(
        [sys.executable, "-c", code, spec], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("form", ["saved", "published once"])
def test_numpy_gives_the_vectors_of_the_library_in_float32(folder: Path, form: str) -> None:
    if form == "published once":
        as_published_once(folder)
    plain = read_plain_model(folder)
    assert plain is not None
    found = NumpyBert(plain.shape, plain.weights, plain.tokenizer, plain.max_tokens).encode(TEXTS)
    wanted = SentenceEncoder.load(str(folder)).model.encode(TEXTS, normalize_embeddings=True)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 2e-6
    assert len(np.unique(found.round(4), axis=0)) > 20


def test_tuned_queries_of_a_new_process_are_close_to_those_of_the_tower(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "v" / "queries.safetensors"
    _, revision, wanted = tuned(folder, path)
    code = (
        "import sys; import numpy as np; from pathlib import Path\n"
        "from rag_flywheel.encode.make import make_encoder\n"
        "from rag_flywheel.encode.tuned import TunedQueries\n"
        f"e = make_encoder(sys.argv[1]); t = TunedQueries(e, Path({str(path)!r}), {revision!r})\n"
        f"np.save({str(tmp_path / 'found.npy')!r}, t.encode_queries({TEXTS[:1]!r}))\n"
        "print('torch' in sys.modules)"
    )
    assert _run(code, folder) == "False\n"
    assert (np.load(tmp_path / "found.npy") * wanted[:1]).sum() >= 0.999
