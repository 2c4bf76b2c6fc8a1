"""What comes from others, models and clusters, runs no code and writes nowhere but where it was told."""

import base64
import contextlib
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_lm import build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.errors import PoolError
from cluster.ray.credentials import find_token, refusal
from cluster.submit import results
from cluster.submit.results import packed, unpack
from evo.config.loader import load_config
from evo.errors import EvoError
from evo.vocabulary.files import tokenizer_state
from fitness.engines.base import EngineError
from fitness.engines.hf.engine import HFEngine


@pytest.fixture
def booby_trapped(tmp_path) -> tuple[Path, Path]:
    """A checkpoint whose own Python files leave a mark when they are imported, and that mark."""
    folder, mark = tmp_path / "model", tmp_path / "mark"
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 51}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    return folder, mark


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_models_code_is_not_run_where_transformers_knows_the_architecture(booby_trapped):
    folder, mark = booby_trapped
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit(folder / "config.json", auto_map=own)
    HFEngine(folder)
    assert not mark.exists()


def test_a_model_that_needs_its_code_is_refused_and_not_asked_about(booby_trapped):
    folder, mark = booby_trapped
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit(folder / "config.json", auto_map=own, model_type="unheard-of", architectures=["Own"])
    with pytest.raises(EngineError, match="trust_remote_code"):
        HFEngine(folder)
    assert not mark.exists()


def test_a_tokenizers_code_is_not_run_nor_asked_about(booby_trapped, monkeypatch):
    folder, mark = booby_trapped
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a hurried user
    own = {"AutoTokenizer": ["own.Tokenizer", None]}
    edit(folder / "tokenizer_config.json", auto_map=own, tokenizer_class="OwnTokenizer")
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    with pytest.raises(EvoError, match="tokenizer can't be read"):
        tokenizer_state(folder)
    assert not mark.exists()


def test_an_adapter_beside_the_model_does_not_put_another_model_in_its_place(
    booby_trapped, tmp_path
):
    folder, _ = booby_trapped
    other = tmp_path / "other"
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 51}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(other)
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(other), "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").unlink(missing_ok=True)
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    try:
        engine = HFEngine(folder)
    except EngineError:
        return
    assert engine.model.config.hidden_size == 8


@pytest.mark.parametrize(
    "text",
    [
        "base: !!python/object/apply:os.system ['touch {mark}']",
        "base: !!python/object/new:os.system ['touch {mark}']",
        "base: !!python/name:os.system",
    ],
)
def test_a_config_runs_nothing(text, tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "c.yaml").write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(EvoError, match="not valid YAML"):
        load_config(tmp_path / "c.yaml")
    assert not mark.exists()


def carried(*members: tuple[tarfile.TarInfo, bytes]) -> str:
    """Text as a hostile cluster could print it: well-formed, with a right digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = buffer.getvalue()
    body = base64.encodebytes(data).decode()
    digest = hashlib.sha256(data).hexdigest()
    return f"{results._BEGIN}\n{digest}\n{body}{results._END}\n"


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../evil"),
        tarfile.TarInfo("a/../../evil"),
        link("evil", "/etc/passwd", tarfile.SYMTYPE),
        link("evil", "../../evil", tarfile.LNKTYPE),
        link("evil", "", tarfile.CHRTYPE),
        link("evil", "", tarfile.FIFOTYPE),
    ],
    ids=["up", "through", "symlink", "hard link", "device", "pipe"],
)
def test_what_a_cluster_sends_back_stays_in_the_folder(member, tmp_path):
    out = tmp_path / "in" / "out"
    with pytest.raises(PoolError):
        unpack(carried((tarfile.TarInfo("fine"), b"x"), (member, b"")), out)
    assert not out.exists()
    assert not list((tmp_path / "in").iterdir())
    assert not (tmp_path / "evil").exists()


def test_absolute_names_land_in_the_folder(tmp_path):
    """As tar itself does it: the leading slash goes."""
    victim = tmp_path / "victim"
    with contextlib.suppress(PoolError):  # older Pythons refuse the name
        unpack(carried((tarfile.TarInfo(str(victim)), b"x")), tmp_path / "out")
    assert not victim.exists()


def test_more_than_the_bound_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_BYTES", 1000)
    zeros = (tarfile.TarInfo("zeros"), bytes(10**6))
    with pytest.raises(PoolError, match="larger than 1000 bytes"):
        unpack(carried(zeros), tmp_path / "out")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "big").write_bytes(bytes(1001))
    with pytest.raises(PoolError, match="scp or rsync"):
        packed(tmp_path / "run")


def test_a_run_folder_survives_the_journey_and_weights_stay(tmp_path):
    run = tmp_path / "run"
    (run / "lineage" / "items").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "lineage" / "items" / "0.parquet").write_bytes(os.urandom(100_000))
    (run / "founders.safetensors").write_bytes(b"weights")
    (run / "link").symlink_to("/etc/passwd")
    unpack("noise\n" + packed(run) + "more noise\n", tmp_path / "back")
    names = {str(f.relative_to(tmp_path / "back")) for f in (tmp_path / "back").rglob("*.*")}
    assert names == {"config.json", "lineage/items/0.parquet"}
    there = (tmp_path / "back" / "lineage" / "items" / "0.parquet").read_bytes()
    assert there == (run / "lineage" / "items" / "0.parquet").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flip", "nothing"])
def test_a_damaged_journey_is_noticed_and_writes_nothing(damage, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}" * 1000)
    text = packed(tmp_path / "run")
    middle = len(text) // 2
    damaged = {
        "cut": text[:middle],
        "flip": text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :],
        "nothing": "the job died",
    }[damage]
    with pytest.raises(PoolError, match="fetch it again"):
        unpack(damaged, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_fetching_never_overwrites(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("new")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").write_text("old")
    with pytest.raises(PoolError, match="exists already"):
        unpack(packed(tmp_path / "run"), tmp_path / "back")
    assert [f.name for f in (tmp_path / "back").iterdir()] == ["mine"]


def test_a_token_is_found_where_ray_finds_it_and_shows_nowhere(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_token() is None
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("s3cret\n")
    file.chmod(0o600)
    found = find_token()
    assert found is not None
    assert (found.text, found.source) == ("s3cret", str(file))
    assert "s3cret" not in repr(found)
    assert not caplog.records
    file.chmod(0o644)
    assert find_token() == found
    assert f"chmod 600 {file}" in caplog.text
    monkeypatch.setenv("RAY_AUTH_TOKEN", "other")
    assert find_token().text == "other"
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("text", ["two words", "two\nlines", "t\u00f6ken"])
def test_a_token_that_no_header_can_carry_is_refused_where_it_stands(tmp_path, monkeypatch, text):
    """Ray's own client ends the process at once, without a word of why."""
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    with pytest.raises(PoolError, match=rf"{file}: not a token") as raised:
        find_token()
    assert text not in str(raised.value)


def test_a_refusal_says_why_there_is_no_token(tmp_path, monkeypatch):
    file = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert f"{file} does not exist" in refusal("head:6379", find_token())
    file.touch()
    assert f"{file} is empty" in refusal("head:6379", find_token())
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    assert "RAY_AUTH_MODE=disabled prevents sending one" in refusal("head:6379", find_token())
