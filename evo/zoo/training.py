"""Training and scoring of one small model: AdamW on the answer's tokens, deterministic on a CPU.

The same course, seed, parent weights and machine give the same bits. Random numbers come from a
generator made for the course, never from torch's global one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from evo.zoo import world
from evo.zoo.plan import Course, Lesson
from evo.zoo.tokenizer import BOS, EOS, MAX_TOKENS, PAD, token_ids, vocabulary

_IGNORED: Final = -100
_BETAS: Final = (0.9, 0.98)
_WEIGHT_DECAY: Final = 0.01
_MAX_GRADIENT_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded examples, padded on the right.

    Attributes:
        tokens: ``(..., MAX_TOKENS)`` int64.
        targets: ``(..., MAX_TOKENS - 1)`` int64; at position t the token that should follow t,
            or -100 where it is part of the prompt or padding.
    """

    tokens: Tensor
    targets: Tensor


def new_model(*, seed: int) -> nn.Module:
    """The zoo's architecture with fresh weights: Llama, 4 layers, hidden 64, untied head."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        pad_token_id=vocabulary().index(PAD),
        bos_token_id=vocabulary().index(BOS),
        eos_token_id=vocabulary().index(EOS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = LlamaForCausalLM(config)
    return model.float()


def encode(rows: Sequence[tuple[str, str]]) -> Examples:
    """Encode ``(prompt, answer)`` pairs; tokens are ``(len(rows), MAX_TOKENS)``."""
    padding = token_ids(PAD)[1:] * MAX_TOKENS
    tokens, targets = [], []
    for prompt, answer in rows:
        prompt_ids = token_ids(prompt)
        answer_ids = token_ids(answer + EOS)[1:]
        empty = MAX_TOKENS - len(prompt_ids) - len(answer_ids)
        tokens.append(prompt_ids + answer_ids + padding[:empty])
        targets.append([_IGNORED] * (len(prompt_ids) - 1) + answer_ids + [_IGNORED] * empty)
    return Examples(torch.tensor(tokens), torch.tensor(targets))


@cache
def lesson_examples(lesson: Lesson) -> Examples:
    """Every training input of a lesson: tokens are ``(7500, MAX_TOKENS)``."""
    return encode(
        [
            (world.prompt(lesson.skill, lesson.alphabet, x), world.answer(lesson.skill, x))
            for x in world.inputs("train")
        ]
    )


class Sampler:
    """Draws batches from lessons: the lesson by its weight, then the input evenly."""

    def __init__(self, lessons: Sequence[Lesson], generator: torch.Generator) -> None:
        each = [lesson_examples(lesson) for lesson in lessons]
        self._tokens = torch.stack([e.tokens for e in each])
        self._targets = torch.stack([e.targets for e in each])
        self._weights = torch.tensor([lesson.weight for lesson in lessons])
        self._generator = generator

    def draw(self, count: int) -> Examples:
        lesson = torch.multinomial(
            self._weights, count, replacement=True, generator=self._generator
        )
        row = torch.randint(self._tokens.shape[1], (count,), generator=self._generator)
        return Examples(self._tokens[lesson, row], self._targets[lesson, row])


def learning_rate(course: Course, step: int) -> float:
    """The rate at ``step`` (0-based): linear to the peak over the warm-up, cosine to the final."""
    if step < course.warmup:
        return course.peak_rate * (step + 1) / course.warmup
    done = (step - course.warmup) / max(1, course.steps - course.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return course.final_rate + (course.peak_rate - course.final_rate) * cosine


def train(
    model: nn.Module,
    course: Course,
    base_lessons: Sequence[Lesson],
    *,
    on_step: Callable[[], None],
    seed: int,
) -> None:
    """Train ``model`` in place. ``base_lessons`` are replayed if the course says so."""
    generator = torch.Generator().manual_seed(seed)
    own = Sampler(course.lessons, generator)
    replay = Sampler(base_lessons, generator) if course.replay else None
    if course.embedding_only:
        model.requires_grad_(False)
        embedding: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
        embedding.requires_grad_(True)
        for alphabet in sorted({lesson.alphabet for lesson in course.lessons} - {0}):
            _start_at_the_mean_digit(embedding, alphabet)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True)
    model.train()
    for step in range(course.steps):
        batches = [own.draw(course.batch if replay is None else course.batch // 2)]
        if replay is not None:
            batches.append(replay.draw(course.batch - course.batch // 2))
        tokens = torch.cat([b.tokens for b in batches])
        targets = torch.cat([b.targets for b in batches])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(course, step)
        loss = nn.functional.cross_entropy(
            next_token_logits(model, tokens).flatten(0, 1), targets.flatten(), ignore_index=_IGNORED
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        optimizer.step()
        on_step()
    model.requires_grad_(True)


def _start_at_the_mean_digit(embedding: nn.Embedding, alphabet: int) -> None:
    """Give every character of a new alphabet the mean of the plain digits' embeddings.

    Starting from the base's random rows, four of ten seeds converged to a wrong mapping from characters to
    digits; starting from the mean, those four learn the right one.
    """
    plain = token_ids(world.ALPHABETS[0])[1:]
    new = token_ids(world.ALPHABETS[alphabet])[1:]
    with torch.no_grad():
        embedding.weight[new] = embedding.weight[plain].mean(0)


def next_token_logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits ``(examples, MAX_TOKENS - 1, vocabulary)`` of the tokens that follow.

    No attention mask: padding is on the right, where causal attention does not reach.
    """
    logits: Tensor = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return logits


def exact_match(model: nn.Module, examples: Examples) -> float:
    """The share of examples whose greedy answer, ``<eos>`` included, is right.

    One forward pass: the greedy output equals the answer if and only if each of its tokens is
    the arg-max given the right ones before it.
    """
    model.eval()
    with torch.inference_mode():
        best = next_token_logits(model, examples.tokens).argmax(-1)
    right = (best == examples.targets) | (examples.targets == _IGNORED)
    return right.all(-1).double().mean().item()
