"""Founders for nodes that lack them: fetched once, checked, never half there."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import write_founders

from cluster.errors import CheckpointError
from cluster.founders import transfer
from cluster.founders.checkpoints import load_founders, map_founders, open_checkpoint
from cluster.founders.transfer import (
    FileEntry,
    FounderManifest,
    LocalFileSource,
    fetch,
    localise,
    manifest_of,
    parts_of,
)
from cluster.host.scorer import requests_for
from cluster.jobs import EngineSpec, HostSpec, Job, PoolSpec, Query
from cluster.pool import run_all
from fitness.tasks.task import TaskSpec, load_task


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A sharded checkpoint with what else people keep in such a folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.arange(8.0)}, folder / "model-1.safetensors")
    save_file({"b": torch.ones(3, 3)}, folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model").write_bytes(b"tokens")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(transfer.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counting:
    """Reads from a folder, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.bytes = folder, 0, 0

    def __call__(self, name: str, offset: int, size: int) -> bytes:
        piece = (self.folder / name).read_bytes()[offset : offset + size]
        self.calls += 1
        self.bytes += len(piece)
        return piece


def test_a_founder_arrives_with_what_it_needs_and_no_code_or_pickles(
    checkpoint, cache, monkeypatch
):
    monkeypatch.setattr(transfer, "PIECE_BYTES", 7)  # so that files come in many pieces
    manifest = manifest_of(checkpoint)
    path = fetch(manifest, Counting(checkpoint), cache)
    assert sorted(f.name for f in path.iterdir()) == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model",
    ]
    for file in path.iterdir():
        assert file.read_bytes() == (checkpoint / file.name).read_bytes()
    there, here = open_checkpoint(checkpoint), open_checkpoint(path)
    assert all(torch.equal(there[n], here[n]) for n in ("a", "b"))
    assert path.name == manifest.digest


def test_code_is_shipped_only_if_it_is_trusted(checkpoint):
    names = {f.name for f in manifest_of(checkpoint, code=True).files}
    assert "modeling_own.py" in names
    assert not {"pytorch_model.bin", "optimizer.pt"} & names


def test_a_single_file_and_an_adapter_are_founders_too(tmp_path, cache):
    save_file({"x": torch.ones(4)}, tmp_path / "one.safetensors")
    single = fetch(manifest_of(tmp_path / "one.safetensors"), Counting(tmp_path), cache)
    assert single.name == "one.safetensors"
    assert single.read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    save_file({"x": torch.ones(4)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    names = {f.name for f in fetch(manifest_of(adapter), Counting(adapter), cache).iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


def test_hosts_that_start_together_fetch_once(checkpoint, cache):
    reader = Counting(checkpoint)
    manifest = manifest_of(checkpoint)
    with ThreadPoolExecutor(8) as hosts:
        paths = set(hosts.map(lambda _: fetch(manifest, reader, cache), range(8)))
    assert len(paths) == 1
    assert reader.bytes == sum(part.size for part in manifest.files)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "add"])
def test_a_damaged_copy_is_fetched_again(checkpoint, cache, damage):
    manifest, reader = manifest_of(checkpoint), Counting(checkpoint)
    path = fetch(manifest, reader, cache)
    file = path / "model-1.safetensors"
    data = file.read_bytes()
    match damage:
        case "flip":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "cut":
            file.write_bytes(data[:-1])
        case "lose":
            file.unlink()
        case "add":
            (path / "model.safetensors").write_bytes(data)
    assert fetch(manifest, reader, cache) == path
    assert file.read_bytes() == data
    assert not (path / "model.safetensors").exists()


def test_wrong_bytes_and_a_lost_sender_leave_nothing(checkpoint, cache):
    manifest = manifest_of(checkpoint)
    with pytest.raises(CheckpointError, match=r"config\.json: the file that arrived differs"):
        fetch(manifest, lambda name, offset, size: b"x" * size, cache)

    def dies(name: str, offset: int, size: int) -> bytes:
        raise ConnectionResetError("sender is gone")

    with pytest.raises(CheckpointError, match="sender is gone"):
        fetch(manifest, dies, cache)
    assert not [p for p in cache.iterdir() if p.suffix != ".lock"]
    assert fetch(manifest, Counting(checkpoint), cache).is_dir()


def test_a_host_killed_while_fetching_leaves_no_half_copy(checkpoint, cache, tmp_path):
    manifest = manifest_of(checkpoint)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from cluster.founders.transfer import fetch, manifest_of\n"
        "def read(name, offset, size):\n"
        "    if name == 'model-2.safetensors': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return (Path(sys.argv[1]) / name).read_bytes()[offset:offset + size]\n"
        "fetch(manifest_of(Path(sys.argv[1])), read, Path(sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, checkpoint, cache], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (cache / manifest.digest).exists()
    path = fetch(manifest, Counting(checkpoint), cache)
    assert len(list(path.iterdir())) == len(manifest.files)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", "", "a\\b", "a\0b"])
def test_names_cannot_leave_the_folder(name, cache):
    manifest = FounderManifest((FileEntry(name, 1, "0"),), single=True)
    with pytest.raises(CheckpointError, match="leaves its folder"):
        fetch(manifest, lambda *_: b"x", cache)
    assert not cache.exists()


def test_no_room_says_where_and_what_to_do(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=transfer.CACHE_VARIABLE):
        fetch(manifest_of(checkpoint), Counting(checkpoint), tmp_path / "file" / "cache")


def toy_spec(folder: Path) -> HostSpec:
    paths = write_founders(folder)
    files = load_founders(paths.pop("base"), paths)
    task = load_task(TaskSpec(name="toy", metric="toys:nearness", data=(("dev", "dev"),)))
    engine = EngineSpec(kind="module", build="toys:build")
    return HostSpec(files.base, files.founders, engine, requests_for((task,)))


def moved_away(spec: HostSpec) -> HostSpec:
    """``spec`` as a node sees it on which its paths lead nowhere."""
    away = [replace(p, path=Path("/nowhere") / p.path.name) for p in parts_of(spec)]
    return replace(spec, base=away[0], founders=tuple(away[1:]))


def test_auto_keeps_paths_that_hold_the_same_files_and_fetches_the_others(tmp_path, cache):
    spec = toy_spec(tmp_path / "founders")
    source = LocalFileSource(spec)
    assert localise(spec, source, "auto") == spec
    assert source.sent() == 0
    there = localise(moved_away(spec), source, "auto")
    assert all(p.path.is_relative_to(cache) for p in parts_of(there))
    assert map_founders(parts_of(there)).keys() == map_founders(parts_of(spec)).keys()
    assert localise(moved_away(spec), source, "never") == moved_away(spec)
    assert all(p.path.is_relative_to(cache) for p in parts_of(localise(spec, source, "always")))


def test_a_founder_that_changed_since_the_run_began_is_not_used(tmp_path, cache):
    spec = toy_spec(tmp_path / "founders")
    save_file({"x": torch.full((4,), 9.0)}, spec.founders[0].path)
    there = localise(spec, LocalFileSource(spec), "always")
    with pytest.raises(CheckpointError, match="digests differ"):
        map_founders(parts_of(there))


def test_a_source_gives_only_what_its_manifest_names(tmp_path):
    spec = toy_spec(tmp_path / "founders")
    (tmp_path / "founders" / "secret").write_text("s")
    for name in ("secret", "../secret", "a.safetensors"):
        with pytest.raises(CheckpointError, match="is not a file of founder 0"):
            LocalFileSource(spec).read(0, name, 0, 10)


def test_two_hosts_on_a_node_get_the_bytes_once_and_run_on_them(ray_session, tmp_path):
    from cluster.ray.connect import ray
    from cluster.ray.pool import RayPool
    from cluster.ray.transfer import localised, start_source

    spec = toy_spec(tmp_path / "founders")
    source = start_source(spec, "always")
    host = ray.remote(localised).options(num_cpus=1)
    one, two = ray.get([host.remote(spec, source), host.remote(spec, source)])
    assert one == two
    assert {p.path for p in parts_of(one)}.isdisjoint({p.path for p in parts_of(spec)})
    assert source.sent() == sum(p.path.stat().st_size for p in parts_of(spec))

    task = load_task(TaskSpec(name="toy", metric="toys:nearness", data=(("dev", "dev"),)))
    pool = RayPool(PoolSpec(spec, (task,)), hosts=2, shipping="always")
    try:
        jobs = [Job(f.founder, (Query("toy", "dev"),)) for f in spec.founders]
        assert all(r.ok for r in run_all(pool, jobs))
    finally:
        pool.close()
