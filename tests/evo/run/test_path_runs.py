"""Runs over data-flow paths, by the command's own functions, on tiny random language models."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from path_runs import run, save_model
from warm_evo import evo as evo_command

import evo
from evo.algorithms import ALGORITHMS, read_settings, traits
from evo.cli.lineage import show
from evo.cli.run import resume_run
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.reproduce.export import export_individual
from evo.run_dir import RunDir
from fitness.engines.hf.engine import HFEngine
from fitness.engines.hf.influence import block_influence, padded
from operators.recipe import Linear, Route


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, and texts whose bits per byte are the fitness."""
    root = tmp_path_factory.mktemp("paths")
    for seed, name in enumerate(("base", "one", "two")):
        save_model(root / name, seed)
    for split, texts in (("dev", "abcd bcda cdab dabc"), ("test", "abce bcea ceab")):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts.split())
        (root / f"texts.{split}.jsonl").write_text(lines)
    return root


@pytest.fixture(scope="module")
def dataflow(folder: Path) -> evo.lineage.Lineage:
    return run(folder, "dataflow", "{name: dataflow, max_length: 5}")


def fitness(lineage: evo.lineage.Lineage) -> dict[str, float]:
    rows = lineage.evaluations.to_pylist()
    return {
        r["individual"]: -r["score"] for r in rows if r["split"] == "dev" and r["status"] == "ok"
    }


def test_a_search_over_paths_beats_its_founders(dataflow):
    scores = fitness(dataflow)
    rows = dataflow.individuals.to_pylist()
    founders = [scores[r["id"]] for r in rows if r["operator"] == "founder"]
    assert scores[dataflow.find("best")] > max(founders)
    assert isinstance(dataflow.recipe("best"), Route)
    assert all(r["status"] == "ok" for r in dataflow.evaluations.to_pylist())


def test_the_exported_path_is_a_plain_model_with_the_score_that_was_recorded(
    dataflow, folder, tmp_path
):
    export_individual(folder / "dataflow", "best", tmp_path / "out")
    route = dataflow.recipe("best")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == len(route.steps)
    again = run_plain(tmp_path / "out", folder)
    assert again == pytest.approx(-fitness(dataflow)[dataflow.find("best")], rel=1e-4)


def run_plain(model_folder: Path, folder: Path) -> float:
    """Mean bits per byte over the dev texts, by plain transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder).eval()
    bits = size = 0.0
    for line in (folder / "texts.dev.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = torch.tensor([[9, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(ids).logits.double(), -1)[0, :-1]
        bits -= float(logprobs.gather(1, ids[0, 1:, None]).sum()) / torch.log(torch.tensor(2.0))
        size += len(text.encode())
    return float(bits / size)


def test_show_draws_the_path_and_says_what_is_dropped_and_repeated(dataflow, folder, capsys):
    show.callback(folder / "dataflow", "best")
    shown = capsys.readouterr().out
    route = dataflow.recipe("best")
    assert f"{len(route.steps)} steps" in shown
    assert "itself has 3" in shown
    assert "embed" in shown
    assert "head" in shown
    for step in route.steps:
        assert step.recipe.name in shown
    founder = next(r["id"] for r in dataflow.individuals.to_pylist() if r["operator"] == "founder")
    show.callback(folder / "dataflow", founder)
    assert capsys.readouterr().out.splitlines()[1] in ("one", "two")


def test_an_unknown_individual_is_the_users_mistake(dataflow, folder):
    done = evo_command("show", folder / "dataflow", "zzz")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_same_seed_finds_the_same_paths(dataflow, folder):
    again = run(folder, "dataflow_again", "{name: dataflow, max_length: 5}")
    assert again.find("best") == dataflow.find("best")
    assert fitness(again) == fitness(dataflow)


@pytest.mark.parametrize(
    "algorithm",
    [
        "path_ga",
        "joint",
        "{name: sequence, stages: [recipe_search, dataflow]}",
        "{name: sequence, stages: [{name: recipe_search, population: 4}, path_ga, joint]}",
        "{name: dataflow, search: flat, scales: matrix}",
        "{name: sequence, stages: [dataflow, genome], evaluations: [20]}",
    ],
)
def test_every_search_over_paths_runs_to_its_end(algorithm, folder):
    name = re.sub(r"\W+", "_", algorithm)
    lineage = run(folder, name, algorithm, evaluations=45)
    kinds = {type(lineage.recipe(r["id"])) for r in lineage.individuals.to_pylist()}
    assert Route in kinds
    if "joint" in algorithm or "recipe_search" in algorithm:
        assert Linear in kinds
    assert all(r["status"] == "ok" for r in lineage.evaluations.to_pylist())


@pytest.mark.parametrize("loop", ["generational", "steady_state"])
@pytest.mark.parametrize(
    "algorithm",
    [
        "{name: path_ga, influence: true}",
        "{name: sequence, stages: [{name: recipe_search, population: 4}, joint], evaluations: [12]}",
    ],
)
def test_a_search_over_paths_that_was_stopped_goes_on(algorithm, loop, folder):
    name = re.sub(r"\W+", "_", f"{algorithm}{loop}")
    whole = run(folder, name, algorithm, evaluations=30, pool=f"{{kind: local}}\nloop: {loop}")
    loaded = RunDir(whole.run_dir).read_config(check_files=True)
    with Evolution(loaded, folder / f"{name}-stopped") as evolution:
        for generation in evolution:
            if generation.number == 2:
                break
    resume_run(folder / f"{name}-stopped")
    stopped = evo.lineage.open(folder / f"{name}-stopped")
    assert fitness(stopped) == fitness(whole)
    assert stopped.individuals == whole.individuals
    assert stopped.population == whole.population


def test_a_price_on_length_shortens_paths(folder):
    lengths = {}
    for penalty in (0.0, 50.0):
        name = f"price{penalty:g}"
        lineage = run(folder, name, f"{{name: path_ga, length_penalty: {penalty}}}", 60)
        best = lineage.recipe("best")
        lengths[penalty] = len(best.steps) if isinstance(best, Route) else 3
    assert lengths[50.0] == 1 < lengths[0.0]


def test_test_scores_are_told_without_the_price(folder):
    summary = json.loads((folder / "price50" / "summary.json").read_text())
    winner = summary["winner"]
    assert winner["test"] == pytest.approx(-winner["tasks"]["t"]["test"])


def test_an_architecture_that_paths_do_not_know_is_refused_before_the_search(folder, tmp_path):
    for name in ("base", "one", "two"):
        shutil.copytree(folder / name, tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text()) | {
            "model_type": "phi3",
            "architectures": ["Phi3ForCausalLM"],
        }
        path.write_text(json.dumps(config))
    for split in ("dev", "test"):
        shutil.copy(folder / f"texts.{split}.jsonl", tmp_path)
    with pytest.raises(EvoError, match=r"'phi3'.*llama, mistral"):
        run(tmp_path, "refused", "dataflow")


def test_block_influence_is_what_its_definition_says(folder):
    engine = HFEngine(folder / "one")
    ids = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 8]])
    mask = ids != 8
    found = block_influence(engine.model, engine.model.model.layers, [(padded(ids, mask), mask)])
    with torch.inference_mode():
        states = engine.model(ids, output_hidden_states=True).hidden_states
    for layer in range(2):  # the last hidden state of transformers is normed
        cosine = torch.cosine_similarity(states[layer], states[layer + 1], dim=-1)[mask]
        assert found[layer] == pytest.approx(1.0 - float(cosine.mean()), abs=1e-5)
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_block_influence_does_not_depend_on_padding(kind, folder):
    """Also where positions are absolute."""
    if kind == "llama":
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "one").eval()
        layers = model.model.layers
    else:
        torch.manual_seed(0)
        sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 10, "n_positions": 16}
        config = transformers.GPT2Config(**sizes, initializer_range=0.4)
        model = transformers.GPT2LMHeadModel(config).eval()
        layers = model.transformer.h
    rows = [[0, 1, 2, 3, 4, 5], [5, 6], [7, 0, 3]]

    def padded_to(side: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        gaps = [6 - len(row) for row in rows]
        left = side == "left"
        ids = [[8] * g + r if left else r + [8] * g for g, r in zip(gaps, rows, strict=True)]
        ones = [[1] * len(row) for row in rows]
        mask = [[0] * g + o if left else o + [0] * g for g, o in zip(gaps, ones, strict=True)]
        weights = torch.tensor(mask)
        return padded(torch.tensor(ids), weights), weights

    alone = [
        ({"input_ids": torch.tensor([row])}, torch.ones(1, len(row), dtype=torch.long))
        for row in rows
    ]
    expected = block_influence(model, layers, alone)
    for side in ("left", "right"):
        assert block_influence(model, layers, [padded_to(side)]) == pytest.approx(
            expected, abs=1e-5
        )


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "[recipe_serch, dataflow]",
            r"line 5: algorithm.stages\[0\]: name .* Did you mean 'recipe_search'",
        ),
        (
            "[genome, {name: dataflow, serch: flat}]",
            r"algorithm.stages\[1\].serch: unknown key. Did you mean 'search'",
        ),
        ("[genome, {search: flat}]", r"algorithm.stages\[1\]: name must be one of"),
        ("[genome, 5]", r"algorithm.stages\[1\]"),
        ("[genome, {name: path_ga, models: [three]}]", r"stages\[1\].*'three'; there are one, two"),
        (
            "[genome, {name: recipe_search, layer_groups: 99}]",
            r"stages\[1\].*99 groups, but the models have 3 layers",
        ),
    ],
)
def test_a_mistake_in_a_stage_is_named_before_anything_is_made(stages, message, folder):
    with pytest.raises(EvoError, match=message):
        run(folder, "mistake", f"{{name: sequence, stages: {stages}}}")
    assert not (folder / "mistake").exists()


def test_a_mistake_in_a_stage_ends_the_command_with_2(folder):
    config = folder / "typo.yaml"
    config.write_text(
        "base: base\nfounders: [one, two]\n"
        "tasks:\n  - {name: t, files: texts, metric: bits_per_byte}\n"
        "algorithm: {name: sequence, stages: [recipe_serch, dataflow]}\n"
    )
    done = evo_command("run", config, "--run-dir", folder / "typo")
    assert done.returncode == 2
    assert "algorithm.stages[0]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "typo").exists()


NAMES = [name for name in ALGORITHMS if traits(read_settings(name)).paths]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 2, 3, 20])
def test_not_one_evaluation_more_than_allowed(name, limit, folder):
    lineage = run(folder, f"limit_{name}_{limit}", name, limit)
    assert len(fitness(lineage)) == limit


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ray_gives_what_one_process_gives(name, folder, ray_session):
    here = run(folder, f"here_{name}", name)
    there = run(folder, f"there_{name}", name, pool="{kind: ray, hosts: 2}")
    assert fitness(here) == fitness(there)
    assert here.individuals["id"].to_pylist() == there.individuals["id"].to_pylist()
