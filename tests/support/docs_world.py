"""The world that the documentation's commands run in: its models, tasks and runs, tiny and random.

The names are those that the pages use. Three founders hold a part each of what a hidden teacher knows,
and the right answers are the teacher's: so there is something for a run to find.
"""

import json
import shutil
import string
from pathlib import Path

import torch
from places import ROOT
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = string.printable[:95]
PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
ZOO = ("rev", "sort", "desc", "swap", "even", "pmax", "pmin", "succpred", "alpha1", "alpha2")
MINE = ("maths", "japanese", "code")
SIZES = {"dev": 40, "select": 30, "test": 40}
LONGEST = 3  # tokens of an answer, the end included

Tensors = dict[str, torch.Tensor]


def build_world(folder: Path) -> Path:
    """``models``, ``tasks`` and ``quiz`` as in the guide to one's own models; ``demo/zoo``; ``examples``."""
    torch.manual_seed(0)
    base = _random_state(0)
    parts = [_task_vector(base, seed) for seed in (1, 2, 3)]
    teacher = _model(_sum(base, *parts))
    _save(folder / "models" / "base", base)
    for name, part in zip(MINE, parts, strict=True):
        _save(folder / "models" / name, _sum(base, part))
    _save(folder / "demo" / "zoo" / "base", base)
    parts_of_zoo = dict(zip(("swap", "alpha1", "pmax"), parts, strict=True))
    for seed, name in enumerate(ZOO, start=4):
        part = parts_of_zoo.get(name, _task_vector(base, seed))
        _save(folder / "demo" / "zoo" / name, _sum(base, part))
    rows = _answered(teacher, [f"{a}+{b}=" for a in range(10, 80) for b in range(10, 20)])
    _write_splits(folder / "tasks", "sums.{}", rows)
    rows = _answered(teacher, [f"<swap>{a:04d}=" for a in range(0, 9000, 11)])
    for task in ("alien", "trio"):
        _write_splits(folder / "demo" / "zoo" / "tasks", f"{task}.{{}}", rows)
    questions = [f"{a} is less than {b}?" for a in range(11) for b in range(10)]
    choices = [_asked(teacher, question) for question in questions]
    _write_splits(folder / "quiz", "{}", choices, {"dev": "train", "select": "val", "test": "test"})
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def _random_state(seed: int) -> Tensors:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config())
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state["lm_head.weight"][1] *= 4.0  # the end comes often, so answers are short
    return state


def _task_vector(base: Tensors, seed: int) -> Tensors:
    torch.manual_seed(seed)
    return {name: 0.05 * torch.randn_like(tensor) for name, tensor in base.items()}


def _sum(*parts: Tensors) -> Tensors:
    return {name: sum((p[name] for p in parts[1:]), parts[0][name]) for name in parts[0]}


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=3 + len(CHARACTERS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )


def _model(state: Tensors) -> LlamaForCausalLM:
    model = LlamaForCausalLM(_config())
    model.load_state_dict(state)
    return model.eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    ids = {token: i for i, token in enumerate((PAD, EOS, UNK, *CHARACTERS))}
    inner = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _save(path: Path, state: Tensors) -> None:
    _model(state).save_pretrained(path)
    _tokenizer().save_pretrained(path)


def _answered(teacher: LlamaForCausalLM, prompts: list[str]) -> list[dict[str, object]]:
    """Those prompts that the teacher answers with a few characters, and its answers."""
    tokenizer = _tokenizer()
    rows: list[dict[str, object]] = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        answer = ""
        for _ in range(LONGEST):
            with torch.no_grad():
                token = int(teacher(ids).logits[0, -1].argmax())
            if token < 3:
                break
            answer += CHARACTERS[token - 3]
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        if token == 1 and answer.strip() == answer != "":
            rows.append({"prompt": prompt, "answer": answer})
        if len(rows) == sum(SIZES.values()):
            break
    return rows


def _asked(teacher: LlamaForCausalLM, question: str) -> dict[str, object]:
    choices = [" yes", " no", " perhaps"]
    ids = torch.tensor([_tokenizer()(question + " ")["input_ids"]])
    with torch.no_grad():
        logits = teacher(ids).logits[0, -1]
    likely = [float(logits[3 + CHARACTERS.index(choice[1])]) for choice in choices]
    return {"prompt": question, "choices": choices, "label": likely.index(max(likely))}


def _write_splits(
    folder: Path,
    name: str,
    rows: list[dict[str, object]],
    names: dict[str, str] | None = None,
) -> None:
    assert len(rows) >= sum(SIZES.values()), f"{folder}: only {len(rows)} rows"
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows[:size])
        rows = rows[size:]
        (folder / f"{name.format((names or {}).get(split, split))}.jsonl").write_text(lines)
