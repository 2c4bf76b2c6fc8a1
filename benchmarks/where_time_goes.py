"""Where the demo run's time goes: host time by part, and what Ray and the coordinator cost.

python benchmarks/where_time_goes.py [--zoo demo/zoo] [--repeats 2] [--evaluations 300]

``local``: the search in one process, each part of a host's work timed apart: wall and processor seconds.
``ray``: one host and two. What the hosts did not work of their time (hosts × seconds of search) is Ray's,
the coordinator's, and waiting for either. On a machine with other work, and one with fewer cores than
processes, that holds what the system gave to others: processor seconds by kind of process stand beside.
Runs take turns. One more is profiled by cProfile in the coordinator's process, with a local pool (the host
is there as well) and with Ray: the functions that took most processor seconds of their own.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from one_search import search
from results import save
from runner import Rows, alternate, summary

from evo.cli.zoo import build_zoo

CONFIG = Path(__file__).parents[1] / "examples" / "demo.yaml"
POOLS = {
    "local": ["pool.kind=local"],
    "ray, 1 host": ["pool.hosts=1"],
    "ray, 2 hosts": ["pool.hosts=2"],
}


def local(settings: list[str]) -> dict[str, float]:
    """Seconds of each part, a search."""
    found = search(CONFIG, [*settings, *POOLS["local"]], parts=True)
    parts = found["parts"]
    rows = {f"{part}, {kind}": parts[part][kind] for part in parts for kind in ("wall_s", "cpu_s")}
    return {**rows, "search_s": found["search_s"], "evaluations": found["evaluations"]}


def on_ray(settings: list[str], pool: str) -> dict[str, float]:
    """Shares of the hosts' time, and of all processor time, of one search."""
    found = search(CONFIG, [*settings, *POOLS[pool]])
    capacity = found["hosts"] * found["search_s"]
    busy = {key: found[f"{key}_s"] for key in ("build", "model", "score")}
    cpu = {key: found[f"cpu_{key}_s"] for key in ("coordinator", "hosts", "ray")}
    return {
        "evaluations_per_second": found["evaluations"] / found["search_s"],
        "startup_s": found["startup_s"],
        **{f"{key}_share": seconds / capacity for key, seconds in busy.items()},
        "other_share": 1.0 - sum(busy.values()) / capacity,
        **{f"cpu_{key}_share": seconds / sum(cpu.values()) for key, seconds in cpu.items()},
        "cpu_s_per_evaluation": sum(cpu.values()) / found["evaluations"],
    }


def shares(rows: list[dict[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of host time, which is all but the coordinator's; and what that and the disk take of everything."""
    found = []
    for row in rows:
        one = {}
        for kind in ("wall_s", "cpu_s"):
            seconds = {k.removesuffix(f", {kind}"): v for k, v in row.items() if k.endswith(kind)}
            whole = sum(seconds.values())
            aside = {part: seconds.pop(part) for part in ("coordinator", "waiting for the disk")}
            host = sum(seconds.values())
            one |= {f"{part}, {kind}": s / host for part, s in seconds.items()}
            one |= {f"{part} (of all), {kind}": s / whole for part, s in aside.items()}
        found.append(one)
    both = summary(found)
    return {
        kind: {
            key.removesuffix(f", {kind}"): value
            for key, value in sorted(both.items(), key=lambda entry: -entry[1]["median"])
            if key.endswith(kind)
        }
        for kind in ("wall_s", "cpu_s")
    }


def headline(data: dict[str, Any]) -> str:
    """Processor time: what the machine gave to others meanwhile does not count."""
    host = data["share_of_host_time"]["cpu_s"]
    other = data["on_ray"]["ray, 1 host"]
    return (
        f"demo run, of the host's processor time: model forward {host['model forward']['median']:.0%}, "
        f"build {host['build']['median']:.0%}, digest {host['digest']['median']:.0%}; on Ray (1 host) "
        f"Ray takes {other['cpu_ray_share']['median']:.0%} and the coordinator "
        f"{other['cpu_coordinator_share']['median']:.0%} of all processor time, and hosts wait "
        f"{other['other_share']['median']:.0%} of theirs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=300)
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    settings = [f"root={options.zoo.resolve()}", f"budget.evaluations={options.evaluations}"]
    candidates = {"local": partial(local, settings)} | {
        pool: partial(on_ray, settings, pool) for pool in POOLS if pool != "local"
    }
    profiles = {
        pool: search(CONFIG, [*settings, *POOLS[pool]], profile=True)["profile"]
        for pool in ("local", "ray, 1 host")
    }

    def keep(rows: Rows) -> None:
        data = {
            "evaluations": options.evaluations,
            "share_of_host_time": shares(rows["local"]),
            "on_ray": {pool: summary(rows[pool]) for pool in POOLS if pool != "local"},
            "profile": profiles,
            "runs": rows,
        }
        print(headline(data), save("where_time_goes", data, headline(data)))

    alternate(candidates, options.repeats, keep)


if __name__ == "__main__":
    main()
