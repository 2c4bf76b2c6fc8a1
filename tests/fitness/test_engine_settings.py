"""engine.compile, and what ``auto`` settles on where a run begins."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lm import build_engine, build_model, copy_weights, save

import evo.lineage
from cluster.founders.checkpoints import load_founders
from evo.cli.run import run_config
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.run.autotune import autotuned
from evo.run.setup import load_tasks
from fitness.engines.hf import token_budget
from fitness.engines.hf.engine import HFEngine
from fitness.engines.hf.token_budget import BUDGETS, fastest_budget
from fitness.requests import LogLikelihood

ASKED = [LogLikelihood("cba"[i % 3] + "a" * 6, "bc") for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("settings")
    for seed, name in enumerate(("base", "one", "two")):
        save(root / name, build_model("llama", seed=seed))
    for split, texts in (("dev", ("abc", "bcd", "cde")), ("test", ("xyz",))):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (root / f"texts.{split}.jsonl").write_text(lines)
    return root


def run(folder: Path, name: str, engine: str, seed: int = 0) -> dict[str, Any]:
    config = folder / f"{name}.yaml"
    config.write_text(
        "base: base\nfounders: [one, two]\n"
        "tasks:\n  - {name: t, files: texts, metric: bits_per_byte}\n"
        f"budget: {{evaluations: 6}}\npool: {{kind: local}}\nseed: {seed}\nengine: {engine}\n"
    )
    run_config(config, folder / name, ())
    frozen: dict[str, Any] = json.loads((folder / name / "config.json").read_text())
    return frozen


def scores(path: Path) -> list[tuple[str, float]]:
    return [(r["individual"], r["score"]) for r in evo.lineage.open(path).evaluations.to_pylist()]


def test_auto_is_found_once_and_frozen_with_the_run(folder: Path) -> None:
    frozen = run(folder, "auto", "{batch_tokens: auto, dtype: auto}")["engine"]
    assert frozen["batch_tokens"] in BUDGETS
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    assert frozen["dtype"] == ("bfloat16" if amx else "float32")
    # Asked for once more, the finished run is shown, whatever would be measured now.
    assert run_config(folder / "auto.yaml", folder / "auto", (), resumes=True)
    # Another run of the frozen config is the same run, to the last bit.
    settings = f"{{batch_tokens: {frozen['batch_tokens']}, dtype: {frozen['dtype']}}}"
    assert run(folder, "again", settings)["engine"] == frozen
    assert scores(folder / "again") == scores(folder / "auto")


def test_auto_needs_the_device_where_the_run_begins(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(EvoError, match=r"engine\.dtype: auto .*no CUDA device.*Set engine\.dtype"):
        run(folder, "cuda", "{dtype: auto, device: cuda}")
    assert not (folder / "cuda" / "config.json").exists()


class Cramped:
    """An engine in whose memory batches of up to ``most`` tokens fit."""

    def __init__(self, most: int) -> None:
        self.batch_tokens, self._most, self.answered = 0, most, 0

    def prepare(self, requests: Any) -> int:
        return self.batch_tokens

    def answer(self, prepared: int) -> None:
        if prepared > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.answered += 1


def test_a_budget_that_memory_is_too_small_for_is_none() -> None:
    assert fastest_budget(Cramped(4096), []) <= 4096  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        fastest_budget(Cramped(100), [])  # type: ignore[arg-type]


def test_a_slow_model_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_budget, "_SECONDS", 0.0)
    slow = Cramped(10**6)
    assert fastest_budget(slow, []) in BUDGETS  # type: ignore[arg-type]
    assert slow.answered == len(BUDGETS)


def test_what_was_measured_leaves_no_model_behind(folder: Path) -> None:
    data = {"base": folder / "base", "founders": [folder / "one", folder / "two"]}
    task = {"name": "t", "files": folder / "texts", "metric": "bits_per_byte"}
    found = RunConfig.model_validate(
        {**data, "tasks": [task], "budget": {"evaluations": 6}, "engine": {"batch_tokens": "auto"}}
    )
    founders, tasks = load_founders(found.base, found.founders), load_tasks(found.tasks)
    gc.collect()
    before = sum(isinstance(each, HFEngine) for each in gc.get_objects())
    autotuned(found, founders, tasks)
    gc.disable()
    try:
        assert sum(isinstance(each, HFEngine) for each in gc.get_objects()) == before
    finally:
        gc.enable()


def test_float32_is_exact_whatever_a_library_allowed_before(tmp_path: Path) -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        build_engine(tmp_path)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.slow
def test_a_compiled_model_answers_as_the_plain_one_whatever_is_installed(tmp_path: Path) -> None:
    plain = build_engine(tmp_path)
    quick = HFEngine(tmp_path, compile=True)
    other = copy_weights(build_model("llama", seed=1))
    for weights in (copy_weights(plain.model), other):
        answers = []
        for engine in (plain, quick):
            engine.install(weights)
            answers.append(engine.answer(engine.prepare(ASKED)))
        for expected, found in zip(*answers, strict=True):
            assert found.greedy == expected.greedy  # type: ignore[union-attr]
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)  # type: ignore[union-attr]
    assert quick.answer(quick.prepare(ASKED)) == quick.answer(quick.prepare(ASKED))


@pytest.mark.slow
def test_without_a_compiler_the_setting_is_refused(tmp_path: Path) -> None:
    save(tmp_path, build_model("llama"))
    code = (
        f"from fitness.engines.hf.engine import HFEngine; HFEngine({str(tmp_path)!r}, compile=True)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1
    assert "engine.compile: torch.compile does not work here" in found.stderr
    assert "install g++, or set CXX" in found.stderr
