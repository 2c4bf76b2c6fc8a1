"""How text becomes tokens: the rules that decide what a log-likelihood means.

As lm-evaluation-harness does it, with three differences where it would score something else than
asked: newlines at the end of a context stay there (only spaces move to the continuation), a
continuation that would merge with its context is tokenised by itself, and nothing is truncated.
"""

from collections.abc import Sequence
from typing import Any

from fitness.engines.base import RequestError


class Encoder:
    """A tokenizer with its special tokens made explicit.

    Attributes:
        leading: what the tokenizer puts before every text (the BOS token, or nothing).
        start: what an empty context is: ``leading``, else BOS, else EOS, else nothing.
        eos: the EOS token, or None.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos: int | None = tokenizer.eos_token_id
        self.leading = _leading(tokenizer)
        spare = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.eos
        self.start: list[int] = self.leading or ([] if spare is None else [spare])

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, without any special tokens around it."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return list(encoded["input_ids"])

    def contexts(self, texts: Sequence[str], chat: Sequence[bool]) -> list[list[int]]:
        """Tokens of each text as a model reads it: with ``leading``, or as a rendered chat."""
        encoded = self.texts(texts)
        return [ids if c else self._led(ids) for ids, c in zip(encoded, chat, strict=True)]

    def pairs(
        self, contexts: Sequence[str], continuations: Sequence[str], chat: Sequence[bool]
    ) -> list[tuple[list[int], list[int]]]:
        """(context tokens, continuation tokens) of each pair, tokenised together.

        ``contexts`` of chats are rendered already. An empty context is ``start``.
        """
        kept = [t if c else t.rstrip(" ") for t, c in zip(contexts, chat, strict=True)]
        moved = [t[len(k) :] + c for t, k, c in zip(contexts, kept, continuations, strict=True)]
        before = self.texts(kept)
        whole = self.texts([k + m for k, m in zip(kept, moved, strict=True)])
        pairs = []
        for i, (head, both) in enumerate(zip(before, whole, strict=True)):
            tail = both[len(head) :]
            if both[: len(head)] != head or (moved[i] and not tail):
                (tail,) = self.texts([moved[i]])
            pairs.append(((head if chat[i] else self._led(head)) or self.start, tail))
        return pairs

    def render(self, index: int, text: str) -> str:
        """``text`` as one user turn of the tokenizer's chat template, up to the model's turn.

        Raises:
            RequestError: the tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise RequestError(
                f"request {index} asks for the chat template, but the tokenizer has none. "
                "Use 'chat: false', or founders with a chat_template."
            )
        rendered: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        return rendered

    def continuation_text(self, prompt: Sequence[int], generated: Sequence[int]) -> str:
        """The text of ``generated``; decoded after its prompt, which decides on leading spaces."""
        before, both = self._decode(prompt), self._decode([*prompt, *generated])
        return both[len(before) :] if both.startswith(before) else self._decode(generated)

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _led(self, ids: list[int]) -> list[int]:
        return ids if ids[: len(self.leading)] == self.leading else self.leading + ids


def _leading(tokenizer: Any) -> list[int]:
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    dressed = list(tokenizer("a")["input_ids"])
    for at in range(len(dressed) - len(plain) + 1):
        if plain and dressed[at : at + len(plain)] == plain:
            return dressed[:at]
    return [i for i in dressed[:1] if i == tokenizer.bos_token_id]
