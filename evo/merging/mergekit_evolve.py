"""``evo import``: a mergekit-evolve config as a run config of ours, with a list of what is not the same.

Source: mergekit 0.1.5, the command mergekit-evolve and its options' defaults.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.merging.evolve_search import algorithm_lines, yaml_scalar
from evo.merging.mergekit_evolve_format import (
    EvolveConfig,
    EvolveGenome,
    EvolveModel,
    EvolveTask,
    read_evolve,
    reasons,
)
from fitness.metrics import METRICS
from fitness.splits import SPLITS

EVALUATIONS = 100  # mergekit-evolve's --max-fevals
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Metrics of lm-evaluation-harness, with or without their filter ("acc,none"), and ours that score alike.
_METRICS = {
    "exact_match,flexible-extract": "numeric_match",
    "acc": "accuracy",
    "acc_norm": "accuracy_norm",
    "exact_match": "exact_match_generate",
    "bits_per_byte": "bits_per_byte",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A run config as YAML text with comments, and what it could not take over, a line each."""

    text: str
    notes: tuple[str, ...]


def import_evolve(path: Path, *, evaluations: int | None = None) -> Imported:
    """Translate the mergekit-evolve config in file ``path``.

    Models that are folders here become absolute paths; others stay as they are, with a note. Task
    files are named and left to write. ``evaluations`` is what --max-fevals was; else its default.

    Raises:
        EvoError: the file is no mergekit-evolve config, or one that no run of ours can be.
    """
    theirs = read_evolve(path)
    writer = _Writer(theirs, evaluations or EVALUATIONS)
    body = list(writer.lines())
    head = [
        f"From the mergekit-evolve config {path.name}. Not carried over, or not the same:",
        *(f"- {note}" for note in writer.notes),
    ]
    comments = [c for line in head for c in textwrap.wrap(line, 96, subsequent_indent="  ")]
    text = "".join(f"# {line}\n" for line in comments) + "\n" + "\n".join(body) + "\n"
    context = {"folder": path.resolve().parent, "check_files": False}
    try:
        RunConfig.model_validate(yaml.safe_load(text), context=context)
    except ValidationError as error:
        raise EvoError(f"{path}: can't become a run config: {reasons(error)}") from error
    return Imported(text, tuple(writer.notes))


@dataclass(slots=True)
class _Writer:
    """Writes the lines of a run config, and notes on the way what gets lost."""

    theirs: EvolveConfig
    evaluations: int
    notes: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        genome = self.theirs.genome
        yield from self._models(genome)
        yield ""
        yield from self._tasks()
        yield ""
        yield from algorithm_lines(self.theirs, self.notes)
        yield ""
        yield "budget:"
        yield f"  evaluations: {self.evaluations}    # was --max-fevals; the founders count too"
        yield ""
        yield "engine:"
        yield "  device: cpu    # or cuda"
        yield ""
        yield "seed: 0    # was --random-seed"
        for where, theirs in (("", self.theirs), ("genome.", genome)):
            for key in theirs.unknown():
                self.notes.append(f"{where}{key}: unknown; mergekit-evolve ignores it too")
        self.notes.append(
            "mergekit-evolve merges into bfloat16; here weights keep the base's dtype (for the same: "
            "engine.dtype: bfloat16)"
        )

    def _models(self, genome: EvolveGenome) -> Iterator[str]:
        base = genome.base_model
        if base is None:
            base = genome.models[0] if genome.models else EvolveModel(path="")
            self.notes.append(
                "genome.base_model: there is none, but a run needs a base: the first model gives "
                "architecture and tokenizer"
            )
        yield f"base: {yaml_scalar(self._place(base, 'genome.base_model'))}"
        yield ""
        yield "founders:"
        names: set[str] = set()
        for index, model in enumerate(genome.models):
            place = self._place(model, f"genome.models[{index}]", base)
            yield f"  {yaml_scalar(_free(Path(place).name, names))}: {yaml_scalar(place)}"
        source = genome.tokenizer_source
        if source in ("union", "base") or (genome.base_model and source == genome.base_model.path):
            yield ""
            yield f"vocabulary: {'union' if source == 'union' else 'base'}"
        elif source is not None:
            self.notes.append(
                f"genome.tokenizer_source: {source!r}: a run aligns tokens to the union or the base's "
                "(vocabulary: union or base); a static merge takes any (evo merge)"
            )

    def _place(self, model: EvolveModel, key: str, base: EvolveModel | None = None) -> str:
        """Where the model is: a folder of this machine, or what was written."""
        for unknown in model.unknown():
            self.notes.append(f"{key}.{unknown}: ignored")
        place = model.path
        if model.adapter is not None:
            if base is None or (base.path, base.revision) != (model.path, model.revision):
                self.notes.append(
                    f"{key}: adds the adapter {model.adapter!r} to a model that is not the base: "
                    "merge it first (peft's merge_and_unload) and give that folder"
                )
                return f"{model.path}+{model.adapter}"
            place = model.adapter
        folder = Path(place).expanduser()
        if folder.is_dir():
            return str(folder.resolve())
        if _HUB_ID.fullmatch(place):
            revision = f" --revision {model.revision}" if model.revision else ""
            self.notes.append(
                f"{key}: {place} is a name on the Hugging Face hub, and models must be local folders. "
                f"First, beside this file: hf download {place}{revision} --local-dir {place}"
            )
        else:
            self.notes.append(
                f"{key}: no folder {place!r} here; paths start at the config's folder"
            )
        return place

    def _tasks(self) -> Iterator[str]:
        theirs = self.theirs
        yield "# A task's examples are JSONL files, one example a line, in disjoint splits: dev drives the"
        yield "# search, select picks the winner, test is scored once. Write them, or leave out select"
        yield "# and test here and in every other task."
        yield "tasks:"
        names: set[str] = set()
        for index, task in enumerate(theirs.tasks):
            key = f"tasks[{index}] ({task.name})"
            if task.weight == 0.0:
                self.notes.append(f"{key}: left out, for its weight is 0")
                continue
            name = _free(task.name, names)
            metric = self._metric(task, key)
            self.notes.append(
                f"{key}: tasks of lm-eval are not read; write its examples to tasks/{name}.*.jsonl"
            )
            yield f"  - name: {yaml_scalar(name)}"
            yield "    files:"
            yield from (f"      {split}: tasks/{name}.{split}.jsonl" for split in SPLITS)
            yield f"    metric: {metric}    # was {yaml_scalar(task.metric)}"
            yield f"    weight: {abs(task.weight)!r}"
            if theirs.limit is not None:
                yield f"    limit: {{dev: {theirs.limit}}}"
            if theirs.apply_chat_template and "chat" in METRICS[metric].options:
                yield "    chat: true    # was apply_chat_template; false for models without a template"
            self.notes.extend(f"{key}.{u}: ignored" for u in task.unknown())
        if theirs.num_fewshot:
            self.notes.append(
                f"num_fewshot: {theirs.num_fewshot}: put the solved examples into the prompts"
                + (", in one turn" if theirs.apply_chat_template else "")
            )
        if theirs.shuffle:
            self.notes.append("shuffle: limit takes the first examples; shuffle the files")

    def _metric(self, task: EvolveTask, key: str) -> str:
        word = task.metric.partition(",")[0]
        metric = _METRICS.get(task.metric, _METRICS.get(word, ""))
        if not metric:
            metric = "exact_match"
            self.notes.append(f"{key}: no metric like {task.metric!r}; exact_match stands for it")
        if task.weight < 0 and METRICS[metric].higher_is_better:
            self.notes.append(
                f"{key}: weight {task.weight}: a task can't be minimised; turn its metric around"
            )
        return metric


def _free(wanted: str, taken: set[str]) -> str:
    """``wanted`` as a name that configs allow, with a number if it is taken."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", wanted).lstrip("_.-") or "unnamed"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    taken.add(name)
    return name
