"""Makes the encoder that a spec names: a sentence-transformers model, or a factory of one's own."""

import importlib

from rag_flywheel.encode.model_folder import find_model, missing_package, model_folder, model_name
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encoder import Encoder, check_encoder
from rag_flywheel.errors import EncoderNotFoundError, FlywheelError


def make_encoder(spec: str) -> Encoder:
    """The encoder that `spec` names: "sentence-transformers:NAME_OR_PATH" or "module:factory".

    Raises EncoderNotFoundError when it cannot be had, saying what to do.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise EncoderNotFoundError(
            f"encoder is {spec!r}; expected 'sentence-transformers:NAME' or 'module:factory'. "
            "An index made with an encoder object is opened with encoder=THE OBJECT"
        )
    if module == "sentence-transformers":
        from rag_flywheel.encode.bert_encoder import BertEncoder
        from rag_flywheel.encode.sentence_encoder import SentenceEncoder

        try:
            folder = model_folder(name)
            plain = BertEncoder.of_folder(folder, name=model_name(name, folder))
            return plain if plain is not None else SentenceEncoder.load(name)
        except ModuleNotFoundError as error:
            raise missing_package(error) from error
    try:
        made: object = getattr(importlib.import_module(module), name)()
    except FlywheelError:
        raise
    except Exception as error:
        raise EncoderNotFoundError(
            f"encoder {spec!r} cannot be made ({type(error).__name__}: {str(error)[:200]}); expected an "
            "importable module with a function or class of that name, called without arguments"
        ) from error
    return check_encoder(made)


def find_token_counter(spec: str) -> TokenCounter | None:
    """The token counter of a sentence-transformers model on this machine, without the model.

    None for another kind of encoder, and for a model that is elsewhere or has no fast tokenizer.
    Raises EncoderNotFoundError for a path without a model.
    """
    module, _, name = spec.partition(":")
    if module != "sentence-transformers":
        return None
    folder = find_model(name)
    return None if folder is None else TokenCounter.of_folder(folder)
