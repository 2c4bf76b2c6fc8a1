"""Static merging against mergekit: time, memory, and the share of the speed of a plain copy.

Both merge the same models: a Llama layout of 300M parameters in bfloat16, a base and two fine-tunes with
random weights. mergekit gets an environment of its own (`build/mergekit-venv`), made on the first run.

- Runs alternate, each in a process of its own, and medians are told: other work may share the machine.
  Processor time (of all threads, user and system) is told too, as it suffers less from that.
- Start-up is the time that the same command takes on a model of a few thousand parameters; merging is
  the rest. Ours includes fsync of what it wrote, mergekit's does not.
- Memory is the peak of RssAnon in /proc/PID/status, polled: what the process holds itself, without
  pages of mapped files, which the system can take back at any time.
- The copy reads all inputs and writes as many bytes as the output, through a buffer of one megabyte.

    python benchmarks/merge.py [--repeats 3] [--methods linear ties] [--threads 1 2]
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from mergekit_env import CACHE, mergekit, versions
from results import save
from safetensors.torch import save_file

HIDDEN, INNER, KEYS, LAYERS, VOCABULARY = 1024, 4096, 512, 15, 32000
TUNED = ("a", "b")
CONFIGS: dict[str, dict[str, Any]] = {
    "linear": {"weight": 0.5},
    "slerp": {"t": 0.4},
    "task_arithmetic": {"weight": 0.5},
    "ties": {"weight": 0.5, "density": 0.5},
    "dare_ties": {"weight": 0.5, "density": 0.5},
}


def shapes(hidden: int, inner: int, keys: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """A Llama's tensors."""
    made = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(layers):
        parts = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        made |= {f"model.layers.{layer}.{n}.weight": s for n, s in parts.items()}
    return {**made, "model.norm.weight": (hidden,)}


def write_models(folder: Path, *sizes: int) -> int:
    """Base and fine-tunes in ``folder``; the number of parameters of each."""
    hidden, inner, _, layers, vocabulary = sizes
    wanted = shapes(*sizes)
    parameters = sum(torch.Size(s).numel() for s in wanted.values())
    if (folder / "done").is_file():
        return parameters
    generator = torch.Generator().manual_seed(0)
    base = {n: 0.02 * torch.randn(s, generator=generator) for n, s in wanted.items()}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": hidden // 16,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    words = {f"<{i}>": i for i in range(vocabulary)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<0>"},
    }
    for name in ("base", *TUNED):
        model = folder / name
        model.mkdir(parents=True, exist_ok=True)
        delta = 0.0 if name == "base" else 0.002
        tensors = {
            n: (t + delta * torch.randn(t.shape, generator=generator)).bfloat16()
            for n, t in base.items()
        }
        save_file(tensors, model / "model.safetensors", {"format": "pt"})
        (model / "config.json").write_text(json.dumps(config))
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        (model / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
        )
    (folder / "done").touch()
    return parameters


def config_of(method: str, folder: Path) -> Path:
    """The same YAML for both; models by full path."""
    base = str(folder / "base")
    tuned = [str(folder / name) for name in (TUNED[:1] if method == "slerp" else TUNED)]
    models = [base, *tuned] if method == "slerp" else tuned
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": m} for m in models],
        "parameters": CONFIGS[method],
        "dtype": "bfloat16",
    }
    if method != "linear":
        config["base_model"] = base
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def run(command: list[Any], threads: int) -> tuple[float, float, int]:
    """(seconds, seconds of processor time, peak bytes of anonymous memory) of a process."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }
    start, peak, used = time.perf_counter(), 0, processor_seconds()
    with subprocess.Popen(
        [str(c) for c in command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, 1024 * int(line.split()[1]))
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        errors = process.stderr.read() if process.stderr else ""
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{errors[-2000:]}")
    return seconds, processor_seconds() - used, peak


def processor_seconds() -> float:
    """User and system time of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def commands(tool: str, binaries: Path, config: Path, out: Path, threads: int) -> list[Any]:
    if tool == "ours":
        evo = Path(sys.executable).parent / "evo"
        return [evo, "merge", config, "--out", out, "--threads", threads]
    return [binaries / "mergekit-yaml", config, out, "--quiet", "--random-seed", 1, "-j", threads]


def copy_seconds(inputs: list[Path], out: Path) -> float:
    """Read ``inputs`` and write as many bytes as one of them to ``out``."""
    buffer = bytearray(2**20)
    start = time.perf_counter()
    with out.open("wb", buffering=0) as target:
        for index, path in enumerate(inputs):
            with path.open("rb", buffering=0) as source:
                while read := source.readinto(buffer):
                    if index == 0:
                        target.write(memoryview(buffer)[:read])
    seconds = time.perf_counter() - start
    out.unlink()
    return seconds


def measure(methods: list[str], all_threads: list[int], repeats: int) -> dict[str, Any]:
    """Run everything; what was found is saved after every repeat."""
    binaries = mergekit()
    large, small, out = CACHE / "merge-300m", CACHE / "merge-small", CACHE / "merge-out"
    parameters = write_models(large, HIDDEN, INNER, KEYS, LAYERS, VOCABULARY)
    write_models(small, 32, 64, 16, 2, 64)
    seen: dict[tuple[str, ...], list[float]] = {}
    data: dict[str, Any] = {}

    def note(value: float, *key: str) -> None:
        seen.setdefault(key, []).append(value)

    for repeat in range(repeats):
        for method in methods:
            inputs = 2 if method in ("linear", "slerp") else 3
            files = [large / n / "model.safetensors" for n in ("base", *TUNED)[:inputs]]
            note(copy_seconds(files, CACHE / "merge-copy"), "copy", method)
            for threads in all_threads:
                for tool in ("ours", "mergekit"):
                    for folder, what in ((small, "start-up"), (large, "total")):
                        shutil.rmtree(out, ignore_errors=True)
                        command = commands(tool, binaries, config_of(method, folder), out, threads)
                        seconds, processor, peak = run(command, threads)
                        note(seconds, tool, method, str(threads), what)
                        note(processor, tool, method, str(threads), f"{what} processor")
                        note(peak, tool, method, str(threads), f"{what} memory")
                    print(f"{repeat} {method} {threads} {tool} {seconds:.2f} s", flush=True)
        shutil.rmtree(out, ignore_errors=True)
        middle = {key: median(values) for key, values in seen.items()}
        data = {
            "parameters": parameters,
            "model_mb": round(2 * parameters / 1e6, 1),
            "repeats": repeat + 1,
            "mergekit": versions(binaries, "mergekit", "torch", "transformers"),
            "rows": [
                row_of(method, threads, middle) for method in methods for threads in all_threads
            ],
            "seconds_seen": {" ".join(k): v for k, v in seen.items() if "memory" not in k[-1]},
        }
        save("merge", data, headline(data))
    return data


def row_of(method: str, threads: int, middle: dict[tuple[str, ...], float]) -> dict[str, Any]:
    """One method with so many threads: both tools, and how much faster ours is."""
    row: dict[str, Any] = {
        "method": method,
        "threads": threads,
        "copy_s": round(middle["copy", method], 3),
    }
    for tool in ("ours", "mergekit"):
        found = {k[-1]: v for k, v in middle.items() if k[:-1] == (tool, method, str(threads))}
        merging = found["total"] - found["start-up"]
        row[tool] = {
            "total_s": round(found["total"], 3),
            "start_up_s": round(found["start-up"], 3),
            "start_up_processor_s": round(found["start-up processor"], 3),
            "merging_s": round(merging, 3),
            "merging_processor_s": round(found["total processor"] - found["start-up processor"], 3),
            "copy_share": round(middle["copy", method] / merging, 4),
            "anonymous_mb": round(found["total memory"] / 1e6, 1),
            "start_up_anonymous_mb": round(found["start-up memory"] / 1e6, 1),
        }
    row["times_faster"] = {
        what: round(row["mergekit"][f"{what}_s"] / row["ours"][f"{what}_s"], 2)
        for what in ("total", "merging", "merging_processor")
    }
    return row


def table(data: dict[str, Any]) -> str:
    """The rows as text."""
    lines = [
        f"model {data['model_mb']} MB; seconds of merging (start-up) and anonymous MB, "
        f"medians of {data['repeats']}",
        f"{'method':16}{'threads':>8}{'ours':>16}{'mergekit':>17}{'faster':>8}{'cpu':>7}{'total':>7}"
        f"{'of copy':>9}{'ours MB':>9}{'mergekit MB':>13}",
    ]
    for row in data["rows"]:
        ours, theirs = row["ours"], row["mergekit"]
        lines.append(
            f"{row['method']:16}{row['threads']:>8}"
            f"{ours['merging_s']:>9.2f} ({ours['start_up_s']:.1f}) "
            f"{theirs['merging_s']:>9.2f} ({theirs['start_up_s']:.1f}) "
            f"{row['times_faster']['merging']:>7.1f}x"
            f"{row['times_faster']['merging_processor']:>6.1f}x{row['times_faster']['total']:>6.1f}x"
            f"{ours['copy_share']:>8.0%}{ours['anonymous_mb']:>9.0f}{theirs['anonymous_mb']:>13.0f}"
        )
    return "\n".join(lines)


def headline(data: dict[str, Any]) -> str:
    faster = [
        f"{row['method']} {row['times_faster']['merging_processor']:.1f}x"
        for row in data["rows"]
        if row["threads"] == 1
    ]
    return (
        f"processor time against mergekit, {data['model_mb']:.0f} MB, 1 thread: {', '.join(faster)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    arguments = parser.parse_args()
    data = measure(arguments.methods, arguments.threads, arguments.repeats)
    print(table(data))


if __name__ == "__main__":
    main()
