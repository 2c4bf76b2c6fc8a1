"""Whatever the bytes: a clear error or a result; never another exception, never a hang.

Configs have theirs in test_config, journals in test_resume.
"""

import contextlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interrupted_runs import config_for, stopped_run
from models import A, B, C

import evo.lineage
from evo.cli import is_user_error
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage import SCHEMAS
from evo.merging import recipe_file
from evo.report.status import read_status
from fitness.metrics import CALL, METRICS
from fitness.tasks.task import Task, TaskError, TaskSpec, load_task
from operators.merge import merge
from operators.recipe import Founder, Linear, Merge, Noise, Route, linear
from operators.recipe.canonical import from_json, to_json

FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["prompt", "answer", "ties", "\ud800", "x" * 300, "../..", "A", "linear"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """``data`` with some bytes changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.integers(0, 3)):
            case 0 if changed:
                changed[at] = draw(st.integers(0, 255))
            case 1:
                del changed[at : at + draw(st.integers(1, 40))]
            case 2:
                changed[at:at] = draw(st.binary(max_size=8))
            case _:
                changed[at:at] = changed[max(0, at - 20) : at]
    return bytes(changed)


@st.composite
def replaced(draw, value):
    """JSON data with one part, anywhere in it, replaced by something else or left out."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    key = draw(st.sampled_from(range(len(value)) if isinstance(value, list) else list(value)))
    copy = list(value) if isinstance(value, list) else dict(value)
    if isinstance(copy, dict) and draw(st.integers(0, 5)) == 0:
        del copy[key]
    else:
        copy[key] = draw(replaced(copy[key]))
    return copy


ROWS = {
    "prompt": {"prompt": "2+2=", "answer": "4"},
    "choices": {"prompt": "The sky is", "choices": [" blue", " red"], "label": 0},
    "text": {"text": "Once upon a time"},
}


@FUZZ
@given(data=st.data(), metric=st.sampled_from([n for n, m in METRICS.items() if m is not CALL]))
def test_a_task_file_of_any_bytes_is_a_task_or_a_task_error(data, metric, tmp_path_factory):
    good = [json.dumps({**row, "prompt": f"{i}"}) for i, row in enumerate(ROWS.values())]
    row = data.draw(st.sampled_from(list(ROWS.values())))
    lines = data.draw(st.lists(st.sampled_from(good) | replaced(row).map(json.dumps), max_size=4))
    text = "\n".join(lines).encode(errors="replace")
    raw = data.draw(st.just(text) | mutated(text) | st.binary(max_size=60))
    path = tmp_path_factory.mktemp("task") / "t.dev.jsonl"
    path.write_bytes(raw)
    with contextlib.suppress(TaskError):
        task = load_task(TaskSpec(name="t", metric=metric, files=(("dev", str(path)),)))
        assert isinstance(task, Task)
        assert task.requests("dev")


RECIPES = [
    linear([(A, 0.3), (B, 0.7), (Noise(3, 1.0, 2), 0.1)]),
    merge("dare_ties", [linear({A: 0.5, B: 0.5}), C], base=A, params={"density": 0.2}, seed=4),
    Founder("a", "0" * 64),
]


@FUZZ
@given(data=st.data(), recipe=st.sampled_from(RECIPES))
def test_a_recipe_of_any_text_is_a_recipe_or_a_value_error(data, recipe):
    text = to_json(recipe)
    changed = data.draw(
        replaced(json.loads(text)).map(json.dumps)
        | mutated(text.encode()).map(lambda b: b.decode(errors="replace"))
        | st.text(max_size=30)
    )
    with contextlib.suppress(ValueError):
        found = from_json(changed)
        assert isinstance(found, Founder | Noise | Linear | Merge | Route)
        assert from_json(to_json(found)) == found


MERGE = b"""merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.5, density: [0.1, 0.9]}}
  - {model: b, parameters: {weight: [{filter: self_attn, value: 0.3}, {value: 1}]}}
parameters: {normalize: true}
dtype: bfloat16
"""


@FUZZ
@given(raw=mutated(MERGE) | st.binary(max_size=60))
def test_a_merge_file_of_any_bytes_is_read_or_refused(raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("merge") / "m.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(EvoError):
        recipe_file.load(path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    stopped_run(config_for(tmp_path_factory.mktemp("founders")), run_dir, 21)
    return run_dir


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_a_run_with_any_file_changed_is_read_or_refused_and_never_half_resumed(
    data, stopped, tmp_path_factory
):
    run_dir = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(stopped, run_dir)
    files = sorted(p for p in run_dir.rglob("*") if p.is_file() and p.name != "lock")
    path = data.draw(st.sampled_from(files))
    path.write_bytes(data.draw(mutated(path.read_bytes())))
    before = {p: p.read_bytes() for p in files}
    refused = False
    try:
        Evolution.resume(run_dir).close()
    except Exception as error:
        assert is_user_error(error), repr(error)  # noqa: PT017
        refused = True
    if refused:
        assert {p: p.read_bytes() for p in files} == before
    with contextlib.suppress(EvoError):
        read_status(run_dir).describe()
    for table in SCHEMAS:
        with contextlib.suppress(EvoError):
            evo.lineage.open(run_dir).table(table)
