"""Config files: what is accepted, and what a person who wrote a wrong one is told."""

import contextlib
import os
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import EXAMPLES

from evo.config.loader import load_config
from evo.config.schema import BudgetConfig, RunConfig, TaskConfig
from evo.errors import EvoError

OTHERS = ("merge.yaml", "cluster.yaml")  # for evo merge, for Ray's launcher
CONFIGS = sorted(p for p in EXAMPLES.glob("*.yaml") if p.name not in OTHERS)

GOOD = """\
base: base
founders: [a, b]
tasks:
  - name: words
    files: words
algorithm:
  name: genome
  sigma: 0.01
budget:
  evaluations: 40
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what GOOD names."""
    folder = tmp_path_factory.mktemp("config")
    for name in ("base", "a", "b", "other/a"):
        (folder / name).mkdir(parents=True)
    for name in ("words.dev", "words.test", "more.dev", "more.select"):
        (folder / f"{name}.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    return folder


@pytest.fixture
def load(place):
    def load(text, *overrides):
        path = place / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load


@pytest.fixture
def refusal(load):
    def refusal(text, *overrides):
        with pytest.raises(EvoError) as caught:
            load(text, *overrides)
        return str(caught.value)

    return refusal


def edited(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_config_has_absolute_paths_and_the_defaults(load, place):
    config = load(GOOD)
    assert config.base == place / "base"
    assert config.founders == {"a": place / "a", "b": place / "b"}
    assert config.tasks[0].files == {s: place / f"words.{s}.jsonl" for s in ("dev", "test")}
    assert config.algorithm.sigma == 0.01
    assert (config.seed, config.finalists, config.pool.kind) == (0, 5, None)


def test_relative_paths_do_not_depend_on_where_one_stands(load, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(GOOD).base == place / "base"


def test_a_frozen_config_reads_back_equal_from_anywhere(load, tmp_path, monkeypatch):
    config = load(GOOD)
    monkeypatch.chdir(tmp_path)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_paths_of_a_config_made_in_python_are_made_absolute(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    task = TaskConfig(name="words", files="words")
    config = RunConfig(base="base", founders=["a", "b"], tasks=[task])
    monkeypatch.chdir(tmp_path)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


BAD = {
    "unknown key": (
        edited("  sigma: 0.01", "  sigma: 0.01\nbudgets: {}"),
        ["run.yaml, line 9", "budgets: unknown key", "Did you mean 'budget'?", "founders"],
    ),
    "unknown key in a task": (
        edited("    files: words", "    files: words\n    metrik: text"),
        ["line 6", "tasks[0].metrik", "Did you mean 'metric'?", "max_tokens"],
    ),
    "unknown key, nothing near": (
        GOOD + "zzz: 1\n",
        ["line 11", "zzz: unknown key. Known here: root, base, founders"],
    ),
    "missing base": (edited("base: base\n", ""), ["line 1", "base: is missing"]),
    "missing tasks": (
        re.sub(r"tasks:.*(?=algorithm)", "", GOOD, flags=re.DOTALL),
        ["tasks: is missing"],
    ),
    "missing task name": (
        edited("name: words\n    files", "files"),
        ["line 4", "tasks[0].name: is missing"],
    ),
    "no tasks": (
        re.sub(r"tasks:.*(?=algorithm)", "tasks: []\n", GOOD, flags=re.DOTALL),
        ["line 3", "tasks", "at least 1 item"],
    ),
    "wrong type": (
        edited("evaluations: 40", "evaluations: many"),
        ["line 10", "budget.evaluations", "integer", "'many'"],
    ),
    "zero evaluations": (
        edited("evaluations: 40", "evaluations: 0"),
        ["line 10", "budget.evaluations", "greater than or equal to 1"],
    ),
    "infinite target": (
        edited("evaluations: 40", "target: .nan"),
        ["line 10", "budget.target", "finite"],
    ),
    "infinite sigma": (edited("0.01", ".inf"), ["line 8", "algorithm.sigma", "finite"]),
    "negative seed": (GOOD + "seed: -1\n", ["line 11", "seed", "greater than or equal to 0"]),
    "huge seed": (GOOD + f"seed: {2**63}\n", ["line 11", "seed"]),
    "no such base": (edited("base: base", "base: nowhere"), ["line 1", "base", "nowhere"]),
    "no such founder": (edited("[a, b]", "[a, nowhere]"), ["line 2", "founders", "nowhere"]),
    "nobody's home": (edited("base: base", "base: ~nobody-of-this-name/x"), ["line 1", "base"]),
    "no such file": (
        edited("files: words", "files: sentences"),
        ["line 5", "tasks[0].files", "sentences.dev.jsonl"],
    ),
    "no such file of a split": (
        edited("files: words", "files: {dev: words.dev.jsonl, test: nowhere.jsonl}"),
        ["line 5", "test: no such file", "nowhere.jsonl"],
    ),
    "no such split": (
        edited("files: words", "files: {dev: words.dev.jsonl, train: words.test.jsonl}"),
        ["line 5", "train", "'dev', 'select' or 'test'"],
    ),
    "no dev split": (
        edited("files: words", "files: {test: words.test.jsonl}"),
        ["tasks[0]", "needs a dev split"],
    ),
    "task name that is no file name": (edited("name: words", "name: ../x"), ["tasks[0].name"]),
    "algorithm": (
        edited("name: genome", "name: genom"),
        ["line 6", "algorithm", "genome, genome_plus, recipe_search", "Did you mean 'genome'?"],
    ),
    "algorithm without a name": (
        edited("  name: genome\n", ""),
        ["algorithm", "name must be one of"],
    ),
    "algorithm that is a number": (
        re.sub(r"algorithm:.*(?=budget)", "algorithm: 5\n", GOOD, flags=re.DOTALL),
        ["line 6", "algorithm"],
    ),
    "algorithm's key": (
        edited("sigma: 0.01", "sigmma: 0.01"),
        ["line 8", "algorithm.sigmma: unknown key", "Did you mean 'sigma'?", "crossover_rate"],
    ),
    "another algorithm's key": (
        edited("sigma: 0.01", "step: 0.5"),
        ["line 8", "algorithm.step: unknown key", "elite"],
    ),
    "algorithm's value": (
        edited("sigma: 0.01", "crossover: tie"),
        ["algorithm", "crossover must be one of average", "ties"],
    ),
    "duplicate key": (GOOD + "base: a\n", ["line 11", "'base' is set twice, first on line 1"]),
    "duplicate founder": (
        edited("[a, b]", "{a: a, b: b, a: other/a}"),
        ["line 2", "'a' is set twice"],
    ),
    "founders of one name": (
        edited("[a, b]", "[a, b, other/a]"),
        ["line 2", "two founders are called 'a'", "name: path"],
    ),
    "one founder": (edited("[a, b]", "[a]"), ["line 2", "two founders or more"]),
    "one founder twice": (edited("[a, b]", "[a, a]"), ["two founders are called 'a'"]),
    "founder's name": (edited("[a, b]", "{a: a, b/c: b}"), ["line 2", "'b/c'", "letters"]),
    "founders as text": (edited("[a, b]", "a"), ["line 2", "founders"]),
    "founders as lists": (edited("[a, b]", "[[a], [b]]"), ["line 2", "founders"]),
    "not YAML": (edited("[a, b]", "[a, b"), ["run.yaml, line 3", "not valid YAML"]),
    "tab": (GOOD + "\tseed: 1\n", ["line 11", "not valid YAML"]),
    "a date that is none": (GOOD + "seed: 2024-13-45\n", ["not valid YAML", "month"]),
    "a tag that fails": (GOOD + "seed: !!bool maybe\n", ["not valid YAML"]),
    "a tag without a value": (GOOD + "seed: !!int\n", ["not valid YAML"]),
    "code": (GOOD + "seed: !!python/object/apply:os.getpid []\n", ["line 11", "not valid YAML"]),
    "empty": ("", ["expected keys such as base"]),
    "a list": ("- base\n", ["expected keys such as base"]),
    "two documents": (GOOD + "---\n" + GOOD, ["not valid YAML"]),
    "circle": (GOOD + "pool: &p\n  hosts: [*p]\n", ["pool.hosts", "line 12"]),
    "deep": (GOOD + "seed: " + "[" * 1500, ["not valid YAML"]),
    "long path": (edited("base: base", "base: " + "x" * 5000), ["run.yaml"]),
    "zero byte": (edited("base: base", 'root: "\\0"\nbase: base'), ["run.yaml"]),
    "module without build": (GOOD + "engine: {kind: module}\n", ["line 11", "engine", "build"]),
    "engine's device": (GOOD + "engine: {device: gpu}\n", ["line 11", "engine.device", "'gpu'"]),
    "engine's dtype": (GOOD + "engine: {dtype: int8}\n", ["engine.dtype", "bfloat16", "'int8'"]),
    "baseline": (GOOD + "baselines: {static: [tis]}\n", ["baselines.static[0]", "ties", "'tis'"]),
}


@pytest.mark.parametrize(("text", "fragments"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_with_place_and_remedy(text, fragments, refusal):
    message = refusal(text)
    for fragment in fragments:
        assert fragment in message
    assert "pydantic" not in message


def test_all_mistakes_are_listed_at_once(refusal):
    lines = refusal(GOOD.replace("base: base", "base: x").replace("40", "-1") + "sed: 0\n")
    assert [re.search(r"line \d+: \S+", line)[0] for line in lines.splitlines()] == [
        "line 1: base:",
        "line 10: budget.evaluations:",
        "line 11: sed:",
    ]


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(EvoError, match=r"none\.yaml: can't be read"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(EvoError, match="can't be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(EvoError, match=r"binary\.yaml: can't be read"):
        load_config(tmp_path / "binary.yaml")


TWO_TASKS = """\
base: base
founders: [a, b]
tasks:
  - {name: words, files: words}
  - {name: more, files: %s}
"""


def test_tasks_must_have_the_same_splits(refusal):
    message = refusal(TWO_TASKS % "more")
    assert "'more' has a select split but 'words' has none" in message


def test_tasks_have_names_of_their_own(refusal):
    message = refusal((TWO_TASKS % "words").replace("more", "words"))
    assert "two tasks are called 'words'" in message


@pytest.mark.parametrize(
    ("given", "evaluations"),
    [
        ({}, 300),
        ({"patience": 3}, 300),
        ({"target": 0.5}, 300),
        ({"seconds": 5}, None),
        ({"generations": 5}, None),
        ({"evaluations": 7, "seconds": 5}, 7),
    ],
)
def test_only_a_budget_that_would_never_end_gets_a_limit(given, evaluations, load):
    text = GOOD.replace("budget:\n  evaluations: 40\n", f"budget: {given}\n")
    assert load(text).budget.evaluations == evaluations
    assert BudgetConfig(**given).evaluations == evaluations


def test_without_a_budget_there_are_300_evaluations(load):
    assert load(GOOD.replace("budget:\n  evaluations: 40\n", "")).budget.evaluations == 300


def test_founders_may_be_named(load, place):
    config = load(edited("[a, b]", "{first: a, second: other/a}"))
    assert config.founders == {"first": place / "a", "second": place / "other" / "a"}


def test_founders_keep_their_order(load):
    assert list(load(edited("[a, b]", "[b, a]")).founders) == ["b", "a"]


def test_a_founder_file_is_called_without_its_ending(load, place):
    (place / "one.safetensors").touch()
    assert list(load(edited("[a, b]", "[one.safetensors, b]")).founders) == ["one", "b"]


def test_an_algorithm_may_be_just_a_name(load):
    text = re.sub(r"algorithm:.*(?=budget)", "algorithm: genome_plus\n", GOOD, flags=re.DOTALL)
    assert load(text).algorithm.name == "genome_plus"
    assert load(text, "algorithm.sigma=0.5").algorithm.sigma == 0.5


@pytest.mark.parametrize("kind", ["absolute", "relative", "home"])
def test_paths_start_at_root(kind, load, place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("base", "a", "b"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
    (tmp_path / "zoo" / "words.dev.jsonl").touch()
    zoo = tmp_path / "zoo"
    root = {"absolute": zoo, "relative": os.path.relpath(zoo, place), "home": "~/zoo"}[kind]
    config = load(f"root: {root}\n{GOOD}")
    assert config.base == zoo / "base"
    assert config.founders["a"] == zoo / "a"
    assert config.tasks[0].files == {"dev": zoo / "words.dev.jsonl"}
    assert load(GOOD, f"root={root}") == config


@pytest.mark.parametrize(
    ("override", "got"),
    [
        ("seed=3", lambda c: c.seed == 3),
        ("seed = 3", lambda c: c.seed == 3),
        ("budget.evaluations=50", lambda c: c.budget.evaluations == 50),
        ("budget={seconds: 2.5}", lambda c: c.budget.seconds == 2.5),
        ("pool.hosts=3", lambda c: c.pool.hosts == 3),
        ("tasks.0.name=other", lambda c: c.tasks[0].name == "other"),
        ("tasks.0.limit.dev=5", lambda c: c.tasks[0].limit == {"dev": 5}),
        ("founders.0=other/a", lambda c: c.founders["a"].parent.name == "other"),
        ("founders={x: a, y: b}", lambda c: list(c.founders) == ["x", "y"]),
        ("algorithm=recipe_search", lambda c: c.algorithm.name == "recipe_search"),
        ("algorithm=genome", lambda c: c.algorithm.sigma == 0.001),
        ("algorithm.sigma=1", lambda c: c.algorithm.sigma == 1.0),
        ("baselines.static=[ties]", lambda c: c.baselines.static == ("ties",)),
    ],
)
def test_an_override_changes_its_key(override, got, load):
    assert got(load(GOOD, override))


def test_the_last_override_wins(load):
    assert load(GOOD, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("seed", "expected key=value"),
        ("=3", "expected key=value"),
        ("budget..seconds=3", "expected key=value"),
        ("seed=[1", "not valid YAML"),
        ("seed=2024-13-45", "not valid YAML"),
        ("seed=x", "seed: Input should be a valid integer"),
        ("sed=1", "sed: unknown key. Did you mean 'seed'?"),
        ("budget.evaluation=1", "budget.evaluation: unknown key. Did you mean 'evaluations'?"),
        ("pol.hosts=1", "pol: unknown key. Did you mean 'pool'?"),
        ("tasks.7.name=x", "'7' is no position in a list of 1"),
        ("tasks.-1.name=x", "'-1' is no position"),
        ("tasks.².name=x", "'²' is no position"),
        ("base.x=1", "base has no keys of its own"),
        ("algorithm=genom", "Did you mean 'genome'?"),
        ("algorithm.name=recipe_search", "algorithm.sigma: unknown key. Did you mean 'sigma0'?"),
    ],
)
def test_a_bad_override_is_named_in_its_refusal(override, fragment, refusal):
    message = refusal(GOOD, override)
    assert fragment in message
    if override != "algorithm.name=recipe_search":
        assert f"--set {override}:" in message


@pytest.mark.parametrize("example", CONFIGS, ids=lambda p: p.name)
def test_the_examples_are_good_configs(example, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(example.parent)  # for functions and classes that it names
    data = yaml.safe_load(example.read_text())
    founders = data["founders"]
    for name in [data["base"], *(founders.values() if isinstance(founders, dict) else founders)]:
        (tmp_path / name).mkdir(parents=True)
    with_files = [task for task in data["tasks"] if "files" in task]
    for task in with_files:
        stem = tmp_path / task["files"]
        stem.parent.mkdir(parents=True, exist_ok=True)
        for split in ("dev", "select", "test"):
            stem.with_name(f"{stem.name}.{split}.jsonl").touch()
    config = load_config(example, [f"root={tmp_path}"])
    assert config.base == tmp_path / data["base"]
    assert len(config.founders) == len(founders)
    assert all(set(t.files) == {"dev", "select", "test"} for t in config.tasks[: len(with_files)])


WORDS = st.sampled_from(
    [
        *(*RunConfig.model_fields, "name", "files", "dev", "words", "genome", "sigma", "static"),
        *("kind", "evaluations", "ties", "2024-13-01", "0x", ".nan", "null"),
        *("[", "]", "{", "}", "-", "?", "|", "%", "---", "&x", "*x", "<<", "~x", "!!int", '"\\0"'),
    ]
)
JUNK = st.lists(st.one_of(WORDS, st.sampled_from([": ", "\n", "\n  ", ", ", "- "])), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.integers() | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
DATA = st.dictionaries(st.sampled_from([*RunConfig.model_fields]), VALUES, max_size=6)
TEXTS = st.one_of(
    JUNK.map("".join),
    JUNK.map(lambda parts: GOOD + "".join(parts)),
    DATA.map(lambda data: yaml.safe_dump({**yaml.safe_load(GOOD), **data})),
    st.text(max_size=40),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=TEXTS, override=st.text(max_size=12) | st.just("seed=1"))
def test_whatever_the_text_the_answer_is_a_config_or_a_user_error(load, text, override):
    for overrides in ((), (override,)):
        with contextlib.suppress(EvoError):
            assert isinstance(load(text, *overrides), RunConfig)
