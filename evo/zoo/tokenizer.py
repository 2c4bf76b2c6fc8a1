"""The zoo's tokenizer: one token a character, one a skill; 49 in all.

An ordinary Hugging Face fast tokenizer. It adds ``<bos>`` and no ``<eos>``, so that an encoded
prompt is ready to be continued; decoding gives back exactly the characters, without spaces.
"""

import re
from functools import cache
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from evo.zoo.world import ALPHABETS, SKILLS

PAD: Final = "<pad>"
BOS: Final = "<bos>"
EOS: Final = "<eos>"

MAX_TOKENS: Final = 12
"""``<bos> <skill> d d d d = answer <eos>`` with the longest answer, four digits."""


_TOKEN: Final = r"<[a-z]+>|."


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token in order of its id; ``<pad>``, ``<bos>`` and ``<eos>`` are 0, 1 and 2."""
    return (PAD, BOS, EOS, *(f"<{skill}>" for skill in SKILLS), *"".join(ALPHABETS), "=")


@cache
def _ids() -> dict[str, int]:
    return {token: i for i, token in enumerate(vocabulary())}


def token_ids(text: str) -> list[int]:
    """The ids that the tokenizer gives, ``<bos>`` included, in a twentieth of its time.

    Training encodes 100,000 short texts, for which the tokenizer would take as long as training a founder.
    """
    ids = _ids()
    return [ids[BOS], *(ids[token] for token in re.findall(_TOKEN, text))]


def make_tokenizer() -> Any:
    """A ``PreTrainedTokenizerFast`` over `vocabulary`. Text outside the world raises on encoding.

    There is no ``<unk>``: a prompt with characters unknown to every model is an error.
    """
    ids = _ids()
    tokenizer = Tokenizer(models.WordLevel(ids))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",  # what decoder-only generation needs
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
    )
