"""mergekit-evolve configs as run configs: what is kept, what is said to be lost, and what is refused."""

import pytest
import yaml
from tiny_lm import build_model, save
from warm_evo import evo as evo_command

from evo.config.loader import load_config
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.merging.mergekit_evolve import import_evolve

FULL = """\
genome:
  models:
    - BASE
    - org/math-7b
    - org/code-7b@v2
    - BASE+ADAPTER
    - other/math-7b
  merge_method: dare_ties
  base_model: BASE
  layer_granularity: 1
  normalize: false
  allow_negative_weights: false
  filters: [self_attn, mlp]
  smooth: true
  tokenizer_source: union
  int8: true
tasks:
  - name: spartqa_train
    weight: 1.5
    metric: acc_norm,none
  - name: my task!
    metric: exact_match,strict-match
    weight: -1
  - wikitext
  - {name: unused, weight: 0}
limit: 128
num_fewshot: 4
shuffle: true
random_init: true
apply_chat_template: false
"""

MINIMAL = """\
genome:
  models: [org/a, org/b]
  merge_method: linear
tasks: [arc]
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "evolve.yml"
        path.write_text(text)
        return path

    return write


def parsed(imported, path):
    """The config as a run reads it, but for files that are still to come."""
    context = {"folder": path.parent, "root": path.parent, "check_files": False}
    return RunConfig.model_validate(yaml.safe_load(imported.text), context=context)


@pytest.fixture
def full(file, tmp_path):
    base = save(tmp_path / "base", build_model("llama"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    path = file(FULL.replace("BASE", str(base)).replace("ADAPTER", str(adapter)))
    imported = import_evolve(path, evaluations=40)
    return imported, parsed(imported, path), tmp_path


def test_a_full_config_keeps_what_can_be_kept(full):
    _, config, folder = full
    assert config.base == folder / "base"
    assert config.founders == {
        "base": folder / "base",
        "math-7b": folder / "org/math-7b",
        "code-7b": folder / "org/code-7b",
        "adapter": folder / "adapter",
        "math-7b-2": folder / "other/math-7b",
    }
    assert config.vocabulary == "union"
    assert config.algorithm.name == "recipe_search"
    assert config.algorithm.method == "dare_ties"
    assert config.algorithm.layer_groups == 2
    assert list(config.algorithm.filters) == ["self_attn", "mlp"]
    assert config.algorithm.params == {"normalize": False, "lambda": 1.0}
    assert config.algorithm.bounds == {"weight": (0.0, 1.5)}
    assert config.budget.evaluations == 40
    tasks = {t.name: t for t in config.tasks}
    assert list(tasks) == ["spartqa_train", "my-task-", "wikitext"]
    assert tasks["spartqa_train"].metric == "accuracy_norm"
    assert tasks["my-task-"].metric == "exact_match_generate"
    assert tasks["wikitext"].metric == "accuracy"
    assert [t.weight for t in config.tasks] == [1.5, 1.0, 1.0]
    assert all(t.limit == {"dev": 128} and not t.chat for t in config.tasks)
    assert tasks["wikitext"].files["dev"] == folder / "tasks" / "wikitext.dev.jsonl"


@pytest.mark.parametrize(
    "fragment",
    [
        "genome.models[1]: org/math-7b is a name on the Hugging Face hub",
        "hf download org/code-7b --revision v2 --local-dir org/code-7b",
        "genome.smooth: every layer group",
        "genome.int8: unknown; mergekit-evolve ignores it too",
        "tasks[0] (spartqa_train): tasks of lm-eval are not read; write its examples to "
        "tasks/spartqa_train.*.jsonl",
        "tasks[1] (my task!): weight -1.0: a task can't be minimised",
        "tasks[3] (unused): left out",
        "num_fewshot: 4: put the solved examples into the prompts",
        "shuffle: limit takes the first examples",
        "random_init: the search starts",
        "bfloat16",
    ],
)
def test_what_is_lost_is_said_and_written(fragment, full):
    imported, _, _ = full
    assert any(fragment in note for note in imported.notes)
    comments = " ".join(
        line.removeprefix("#").strip() for line in imported.text.splitlines() if line[:1] == "#"
    )
    assert " ".join(fragment.split()) in comments


def test_a_minimal_config_gets_mergekits_defaults(file):
    path = file(MINIMAL)
    imported = import_evolve(path)
    config = parsed(imported, path)
    assert config.base == config.founders["a"]
    assert any("the first model gives architecture" in note for note in imported.notes)
    assert config.vocabulary is None
    assert config.algorithm.method == "linear"
    assert config.algorithm.params == {"normalize": True}
    assert config.algorithm.layer_groups == 1
    assert config.budget.evaluations == 100
    assert config.tasks[0].chat
    assert config.tasks[0].limit == {}


def test_models_as_mappings_and_names_that_yaml_would_misread(file):
    text = """\
genome:
  models:
    - model: {path: org/7, revision: main}
    - {model: org/null, lora: org/adapter}
  base_model: {model: {path: org/7, revision: main}}
  merge_method: ties
  allow_negative_weights: true
  tokenizer_source: org/7
  layer_granularity: 8
tasks: [{name: "1e3", metric: "brier_score,none"}]
"""
    path = file(text)
    imported = import_evolve(path)
    config = parsed(imported, path)
    assert list(config.founders) == ["7", "adapter"]
    assert config.founders["adapter"] == path.parent / "org" / "null+org" / "adapter"
    assert config.tasks[0].name == "1e3"
    assert config.vocabulary == "base"
    assert config.algorithm.bounds == {"weight": (-1.5, 1.5)}
    notes = " ".join(imported.notes)
    assert (
        "genome.models[1]: adds the adapter 'org/adapter' to a model that is not the base" in notes
    )
    assert "genome.layer_granularity: 8: no model is here to count its layers" in notes
    assert "no metric like 'brier_score,none'; exact_match stands for it" in notes


@pytest.mark.parametrize(
    ("models", "pair"),
    [("[a/a, a/b]", "its two models"), ("[a/a, a/b, a/c]", "the two models that score best")],
)
def test_slerp_merges_two_models_and_says_so(models, pair, file):
    text = MINIMAL.replace("[org/a, org/b]", models).replace("linear", "slerp")
    path = file(text)
    imported = import_evolve(path)
    assert parsed(imported, path).algorithm.method == "slerp"
    assert any(
        note.startswith(f"genome.merge_method: slerp merges {pair}") for note in imported.notes
    )


def test_a_filter_for_every_tensor_is_the_default(file):
    path = file(MINIMAL.replace("linear", 'linear\n  filters: [mlp, "*", self_attn]'))
    assert parsed(import_evolve(path), path).algorithm.filters == ("mlp",)


def test_filters_that_decide_nothing_are_left_out(file):
    path = file(MINIMAL.replace("linear", "linear\n  filters: [mlp.down, mlp, down, mlp, mlp.up]"))
    imported = import_evolve(path)
    assert parsed(imported, path).algorithm.filters == ("mlp.down", "mlp", "down")
    notes = " ".join(imported.notes)
    assert "genome.filters[3]: 'mlp' is left out, for 'mlp' before it" in notes
    assert "genome.filters[4]: 'mlp.up' is left out, for 'mlp' before it" in notes


def test_layers_that_cannot_be_divided_are_said(file, tmp_path):
    base = save(tmp_path / "base", build_model("llama"))
    text = MINIMAL.replace("org/a", str(base)).replace("linear", "linear\n  layer_granularity: 3")
    imported = import_evolve(file(text))
    assert "layer_groups: 1    # 2 layers, 3 in each" in imported.text
    assert any("3 does not divide 2 layers" in note for note in imported.notes)


BAD = {
    "no YAML": ("genome: [", "not valid YAML"),
    "empty": ("", "not a mergekit-evolve config, which has genome and tasks"),
    "a list": ("- genome", "not a mergekit-evolve config"),
    "a static recipe": (
        "merge_method: linear\nmodels: [{model: a}, {model: b}]\n",
        "recipe of mergekit-yaml, for: evo merge",
    ),
    "no models": (
        MINIMAL.replace("  models: [org/a, org/b]\n", ""),
        "genome.models: Field required",
    ),
    "no models at all": (MINIMAL.replace("org/a, org/b", ""), "genome.models: Tuple should have"),
    "one model": (MINIMAL.replace(", org/b", ""), "genome.models: Tuple should have at least 2"),
    "a model without a name": (MINIMAL.replace("org/a", '"@r"'), "genome.models[0].path: String"),
    "negative groups": (
        MINIMAL.replace("linear", "linear\n  layer_granularity: -3"),
        "genome.layer_granularity: Input should be greater than or equal to 0",
    ),
    "an empty filter": (
        MINIMAL.replace("linear", "linear\n  filters: ['']"),
        "genome.filters[0]: String",
    ),
    "another method": (MINIMAL.replace("linear", "della"), "genome.merge_method: Input should be"),
    "ties without a base": (
        MINIMAL.replace("linear", "ties"),
        "genome: base_model is required for ties",
    ),
    "slerp with filters": (
        MINIMAL.replace("linear", "slerp\n  filters: [mlp]"),
        "genome: slerp goes with neither smooth nor filters",
    ),
    "no tasks": (MINIMAL.replace("tasks: [arc]", ""), "tasks: Field required"),
    "tasks of no weight": (
        MINIMAL.replace("[arc]", "[{name: arc, weight: 0}]"),
        "tasks: no task with a weight other than 0",
    ),
    "a task without a name": (MINIMAL.replace("[arc]", "[{weight: 1}]"), "tasks[0].name"),
    "a limit that is none": (MINIMAL + "limit: many\n", "limit: Input should be a valid integer"),
    "a limit of zero": (MINIMAL + "limit: 0\n", ": limit: Input should be greater"),
    "a negative limit": (MINIMAL + "limit: -3\n", ": limit: Input should be greater"),
}


@pytest.mark.parametrize(("text", "fragment"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_with_file_and_key(text, fragment, file):
    path = file(text)
    with pytest.raises(EvoError) as caught:
        import_evolve(path)
    assert str(path) in str(caught.value)
    assert fragment in str(caught.value)


def test_an_imported_config_runs_once_its_files_are_there(tmp_path):
    names = {n: save(tmp_path / n, build_model("llama", seed=i)) for i, n in enumerate("xab")}
    config = tmp_path / "evolve.yml"
    config.write_text(
        f"genome:\n  models: [{names['a']}, {names['b']}]\n  base_model: {names['x']}\n"
        "  merge_method: ties\n  layer_granularity: 1\n  filters: [mlp]\n"
        "tasks: [{name: sums, metric: 'acc,none'}]\nlimit: 2\napply_chat_template: false\n"
    )
    out = tmp_path / "new" / "run.yaml"
    done = evo_command("import", config, "--out", out, "--evaluations", "6")
    assert done.returncode == 0, done.stderr
    assert "- tasks[0] (sums): tasks of lm-eval are not read" in done.stderr
    with pytest.raises(EvoError, match="no such file"):
        load_config(out)
    (out.parent / "tasks").mkdir()
    for split in ("dev", "select", "test"):
        (out.parent / "tasks" / f"sums.{split}.jsonl").write_text(
            "".join(
                f'{{"prompt": "{split} {i}=", "choices": ["1", "2"], "label": 0}}\n'
                for i in range(3)
            )
        )
    loaded = load_config(out, ["pool.kind=local"])
    with Evolution(loaded, tmp_path / "run") as run:
        list(run)
        assert run.finish().evaluations == 6
