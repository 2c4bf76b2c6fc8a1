"""The engine for any torch module: install by name, and functions of it."""

import sys
from pathlib import Path

import pytest
import torch

from fitness.engines.base import EngineError, InstallError, NonFiniteOutputError, RequestError
from fitness.engines.module import ModuleEngine
from fitness.functions import FunctionNameError, load_function
from fitness.requests import Call, CallOutput, LogLikelihood
from operators.tensors.weights import weights_of

SOURCE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Dropout())

def build_rnn():
    return torch.nn.LSTM(3, 2)

def build_nothing():
    return 3

def outputs(module, data):
    return module(torch.full((2, 3), float(data)))[:, 0]

def outputs_rnn(module, data):
    return [float(module(torch.full((2, 3), float(data)))[0].sum())]

def grad(module, data):
    return [float(torch.is_grad_enabled()), float(module.training)]

def text(module, data):
    return ["a"]

def nothing(module, data):
    return []

def single(module, data):
    return 1.0

def table(module, data):
    return torch.zeros(2, 2)

NUMBER = 3
"""


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("users_module", None)


def test_functions_see_the_installed_tensors_in_eval_mode() -> None:
    engine = ModuleEngine("users_module:build")
    state = {n: t.clone() for n, t in engine.module.state_dict().items()}
    prepared = engine.prepare([Call("users_module:outputs", "2"), Call("users_module:grad", "")])
    (first, flags) = engine.answer(prepared)
    assert flags == CallOutput((0.0, 0.0))
    engine.install(weights_of(state))
    assert engine.answer(prepared)[0] == first
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        before = engine.answer(prepared)[0]
        state[name].add_(0.5)
        assert engine.answer(prepared)[0] != before, name


def test_modules_that_keep_lists_of_their_parameters_follow_too() -> None:
    engine = ModuleEngine("users_module:build_rnn")
    prepared = engine.prepare([Call("users_module:outputs_rnn", "1")])
    engine.install(
        weights_of({n: torch.zeros_like(p) for n, p in engine.module.state_dict().items()})
    )
    assert engine.answer(prepared) == [CallOutput((0.0,))]


def test_weights_that_do_not_cover_the_module_are_refused() -> None:
    engine = ModuleEngine("users_module:build")
    with pytest.raises(InstallError, match=r"no tensor for .*'0\.bias'"):
        engine.install(weights_of({"0.weight": torch.zeros(2, 3)}))


def test_nan_weights_fail() -> None:
    engine = ModuleEngine("users_module:build")
    state = {n: t.clone() for n, t in engine.module.state_dict().items()}
    state["0.bias"][0] = float("nan")
    engine.install(weights_of(state))
    with pytest.raises(NonFiniteOutputError, match="users_module:outputs"):
        engine.answer(engine.prepare([Call("users_module:outputs", "2")]))


@pytest.mark.parametrize("name", ["text", "nothing", "single", "table"])
def test_functions_must_return_a_score_an_example(name: str) -> None:
    engine = ModuleEngine("users_module:build")
    with pytest.raises(EngineError, match=f"users_module:{name}.* must return"):
        engine.answer(engine.prepare([Call(f"users_module:{name}", "")]))


def test_other_requests_are_refused_with_the_remedy() -> None:
    with pytest.raises(RequestError, match=r"request 0 is a LogLikelihood.*metric: package"):
        ModuleEngine("users_module:build").prepare([LogLikelihood("a", "b")])


def test_build_must_return_a_module() -> None:
    with pytest.raises(EngineError, match=r"returned int, not a torch\.nn\.Module"):
        ModuleEngine("users_module:build_nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_module.build", "Write 'package.module:name'"),
        ("users_module:", "Write 'package.module:name'"),
        ("users_modul:build", "no module 'users_modul'"),
        ("users_module.more:build", "no module 'users_module.more'"),
        ("users_module:biuld", "has no 'biuld'. Did you mean build"),
        ("users_module:NUMBER", "is a int, not a function"),
    ],
)
def test_names_that_lead_to_no_function(name: str, message: str) -> None:
    with pytest.raises(FunctionNameError, match=message):
        load_function(name)


def test_an_import_error_inside_a_users_module_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text("import not_there_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        load_function("breaks:f")
