"""Any causal language model that transformers loads."""

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitness.engines.base import EngineError, PreparedRequests, RequestError
from fitness.engines.hf.compiled import compiled
from fitness.engines.hf.generation import generate
from fitness.engines.hf.influence import block_influence, padded
from fitness.engines.hf.load import context_length, end_tokens, load_checkpoint
from fitness.engines.hf.model_batch.low_rank import AdaptedModel
from fitness.engines.hf.model_batch.runner import ModelBatches, Passes, TokenScores
from fitness.engines.hf.paths import PathModel, layer_list
from fitness.engines.hf.rows.batches import (
    MAX_TREE,
    PromptBatch,
    ScoredBatch,
    prompt_batches,
    scored_batches,
)
from fitness.engines.hf.rows.branching import token_trees
from fitness.engines.hf.rows.requests import Limits, prompt_rows, scored_rows
from fitness.engines.hf.rows.tokens import Encoder
from fitness.engines.hf.scores import fingerprint_of, outputs_of, read, scores_of
from fitness.engines.install import Installer
from fitness.requests import Output, Request
from operators.build.architectures import ArchitectureError, architecture_of, path_kinds
from operators.build.paths import LayerPath
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights

# Module trees that are kept for paths of the same length through the same kinds of layers.
_PATH_MODELS = 64


@dataclass(frozen=True, slots=True)
class _PreparedBatches(PreparedRequests):
    """Requests as batches.

    Attributes:
        owner: the engine they were prepared by.
        starts: of each scored row, its first place among all scored tokens in batch order.
        row_requests: of each scored row, its request.
        scored_tokens: that a model reads for ``scored``, without padding.
        prompt_tokens: the same of ``prompts``.
    """

    owner: object
    requests: tuple[Request, ...]
    scored: tuple[ScoredBatch, ...]
    starts: NDArray[np.int64]
    row_requests: NDArray[np.int64]
    prompts: tuple[PromptBatch, ...]
    scored_tokens: int
    prompt_tokens: int


class HFEngine:
    """Answers `LogLikelihood`, `RollingLogLikelihood` and `Generate` with a causal language model.

    The checkpoint gives the architecture, the tokenizer and the first weights; `install` replaces
    the weights. Attributes ``model`` and ``tokenizer`` are transformers' own objects; ``batch_tokens``
    is what the next `prepare` goes by.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        batch_tokens: int = 16384,
        trust_remote_code: bool = False,
        compile: bool = False,
    ) -> None:
        """Load the checkpoint in folder ``path``; only safetensors, nothing from the network.

        Args:
            dtype: of the model as loaded, the checkpoint's own when None. Installed weights keep
                theirs.
            batch_tokens: padded tokens a batch, at most, unless one request alone has more.
            trust_remote_code: run Python code that comes with the checkpoint.
            compile: read what is scored with torch.compile; what is generated, and paths, run as ever.

        Raises:
            EngineError: no checkpoint there that transformers can load, tensors are missing, or torch
                can't compile here.
        """
        # What torch does by default, but a library may have allowed less exact products since.
        torch.set_float32_matmul_precision("highest")
        self.model, self.tokenizer = load_checkpoint(Path(path), dtype, trust_remote_code)
        self.model.to(device).eval()
        self._mark = object()
        self._tokens = 0
        self._active: Any = self.model
        self._compiled: Any = compiled(self.model, device) if compile else None
        self._replacement: PathModel | AdaptedModel | None = None
        self._config = self.model.config.to_dict()
        self._path_models: OrderedDict[tuple[object, ...], PathModel] = OrderedDict()
        self._device = device
        self.batch_tokens = batch_tokens
        self._encoder = Encoder(self.tokenizer)
        text_config = self.model.config.get_text_config()
        self._vocabulary = int(text_config.vocab_size)
        self._limits = Limits(self._encoder, context_length(text_config, self.tokenizer))
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self._installer = Installer(self.model, prefix=self.model.base_model_prefix, device=device)
        self._population = ModelBatches(
            self.model,
            self._installer,
            Passes(
                plain=self.model if self._compiled is None else self._compiled,
                batches=lambda prepared: None if prepared.prompts else prepared.scored,
                scores=self._scores,
                evidence=self._evidence,
                outputs=self._one_of_many,
                alone=self._alone,
                batch_tokens=lambda: self.batch_tokens,
            ),
            device=device,
        )
        self._eos = end_tokens(self.tokenizer, self.model)
        pad = self.tokenizer.pad_token_id
        self._pad = pad if pad is not None else next(iter(self._eos), 0)
        # generate() fills what a call leaves open from here: leave it nothing of the checkpoint's.
        self.model.generation_config = type(self.model.generation_config)()

    @property
    def tokens(self) -> int:
        """See `Engine.tokens`."""
        return self._tokens

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """See `Engine.prepare`. Requests longer than the model's context are refused, not cut."""
        rows = scored_rows(requests, self._limits)
        trees = token_trees(rows, self.model, most=min(self.batch_tokens, MAX_TREE))
        ordered, scored = scored_batches(
            trees,
            batch_tokens=self.batch_tokens,
            vocabulary=self._vocabulary,
            pad=self._pad,
            device=self._device,
        )
        counts = np.array([row.count for row in ordered], dtype=np.int64)
        prompts = prompt_batches(
            prompt_rows(requests, self._limits),
            batch_tokens=self.batch_tokens,
            pad=self._pad,
            device=self._device,
        )
        return _PreparedBatches(
            count=len(requests),
            owner=self._mark,
            requests=tuple(requests),
            scored=tuple(scored),
            starts=np.cumsum(counts) - counts,
            row_requests=np.array([row.request for row in ordered], dtype=np.int64),
            prompts=tuple(prompts),
            scored_tokens=sum(tree.nodes for tree in trees),
            prompt_tokens=sum(len(row.ids) for batch in prompts for row in batch.rows),
        )

    def install(self, weights: Weights) -> None:
        """See `Engine.install`. Tied weights need one tensor; hub-style names without the prefix of
        the base model are understood.
        """
        self._installer.install(weights)
        self._activate(None)

    def install_path(self, path: LayerPath) -> None:
        """See `RunsPaths.install_path`."""
        kinds = path_kinds(self._config, path.layers)
        if kinds not in self._path_models:
            try:
                self._path_models[kinds] = PathModel(self.model, path.layers, self._device)
            except ArchitectureError as error:
                raise EngineError(str(error)) from error
            if len(self._path_models) > _PATH_MODELS:
                self._path_models.popitem(last=False)
        self._path_models.move_to_end(kinds)
        replacement = self._path_models[kinds]
        replacement.install(path)
        self._activate(replacement)

    def install_adapted(self, individual: Adapted) -> None:
        """See `AppliesAdapters.install_adapted`: to plain linear layers and embeddings."""
        applied = self._population.applied()
        applied.install([individual])
        self._activate(applied)

    def _activate(self, replacement: PathModel | AdaptedModel | None) -> None:
        if self._replacement is not None and self._replacement is not replacement:
            self._replacement.release()
        self._replacement = replacement
        self._active = self.model if replacement is None else replacement.model

    def influence(self, prepared: PreparedRequests) -> list[float]:
        """See `MeasuresInfluence.influence`."""
        prepared = self._own(prepared)
        try:
            layers = layer_list(self._active, architecture_of(self._config))
        except ArchitectureError as error:
            raise EngineError(str(error)) from error
        scored = [(_as_read(b), b.reads) for b in prepared.scored]
        prompts = [(padded(b.ids, b.mask), b.mask) for b in prepared.prompts]
        found = block_influence(self._active, layers, scored or prompts)
        self._tokens += prepared.scored_tokens if scored else prepared.prompt_tokens
        return found

    def answer(self, prepared: PreparedRequests) -> list[Output]:
        """See `Engine.answer`."""
        prepared = self._own(prepared)
        with torch.inference_mode():
            outputs = self._scored(prepared) if prepared.scored else {}
            count = prepared.scored_tokens + prepared.prompt_tokens
            for batch in prepared.prompts:
                texts, generated = generate(
                    self._active, batch, self._encoder, eos=self._eos, pad=self._pad
                )
                outputs.update(zip((r.request for r in batch.rows), texts, strict=True))
                count += generated
        self._tokens += count
        return [outputs[i] for i in range(prepared.count)]

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """See `RunsModelBatches.fallbacks`."""
        return tuple(self._population.fallbacks)

    def model_batch_size(self, prepared: Sequence[PreparedRequests]) -> int:
        """See `RunsModelBatches.model_batch_size`. Paths run one by one."""
        return min(self._population.model_batch_size(self._own(p)) for p in prepared)

    def answer_many(
        self, population: Stack | Sequence[Adapted], prepared: PreparedRequests
    ) -> list[list[Output] | EngineError]:
        """See `RunsModelBatches.answer_many`."""
        with torch.inference_mode():
            return self._population.answer(population, self._own(prepared))

    def _own(self, prepared: PreparedRequests) -> _PreparedBatches:
        if not isinstance(prepared, _PreparedBatches) or prepared.owner is not self._mark:
            raise RequestError("these requests were prepared by another engine; prepare them here.")
        return prepared

    def _alone(self, individual: Weights | Adapted, prepared: _PreparedBatches) -> list[Output]:
        if isinstance(individual, Adapted):
            self.install_adapted(individual)
        else:
            self.install(individual)
        return self.answer(prepared)

    def _one_of_many(self, prepared: _PreparedBatches, scores: TokenScores) -> list[Output]:
        outputs = self._outputs(prepared, scores)
        self._tokens += prepared.scored_tokens
        return [outputs[i] for i in range(prepared.count)]

    def _scored(self, prepared: _PreparedBatches) -> dict[int, Output]:
        model = self._active if self._compiled is None or self._replacement else self._compiled
        (logprobs,), (misses,) = self._scores(model, prepared, 1)
        return self._outputs(prepared, (logprobs, misses))

    def _scores(self, model: Any, prepared: _PreparedBatches, individuals: int) -> TokenScores:
        return scores_of(self._read(model, prepared, individuals), individuals)

    def _evidence(self, model: Any, prepared: _PreparedBatches, individuals: int) -> Tensor:
        return fingerprint_of(self._read(model, prepared, individuals), individuals)

    def _read(
        self, model: Any, prepared: _PreparedBatches, individuals: int
    ) -> Iterator[tuple[Tensor, ScoredBatch]]:
        return read(model, prepared.scored, individuals, keeps_logits=self._keeps_logits)

    def _outputs(self, prepared: _PreparedBatches, scores: TokenScores) -> dict[int, Output]:
        return outputs_of(prepared.requests, prepared.row_requests, prepared.starts, scores)


def _as_read(batch: ScoredBatch) -> dict[str, Tensor]:
    """What the model takes to read ``batch`` with padding masked out."""
    if batch.branching is not None:
        return batch.inputs()
    return padded(batch.ids, batch.reads > 0)
