"""A program that makes nodes come and go under a pool, and tells what the pool did; see test_nodes.py.

Each line that it reads names a scenario, each line that it writes is what came of it, as JSON. It is
a process of its own because a process has one Ray, and other tests share theirs.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_health_check_initial_delay_ms": "300",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "10000",  # a dead one refuses at once; a busy one is not dead
    "RAY_health_check_failure_threshold": "2",
}

from patience import PATIENCE_S
from ray.cluster_utils import Cluster
from toy_pools import fault_spec, jobs_for

from cluster.jobs import Job, JobResult
from cluster.pool import PoolError
from cluster.ray import pool as ray_pool
from cluster.ray.connect import ray
from cluster.ray.pool import RayPool
from operators.recipe import linear

STORE = 100 * 2**20
FOLDER = Path(sys.argv[1])


def naps(spec: Any, jobs: int) -> list[Job]:
    a, b, _ = (f.founder for f in spec.host.founders)
    return jobs_for(spec, "naps", [linear({a: 1.0, b: k / 100}) for k in range(jobs)])


class Occupant:
    def hello(self) -> None: ...


class Driver:
    def __init__(self) -> None:
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": STORE,
            },
        )
        self.nodes: list[Any] = []
        self.spec = fault_spec(FOLDER)
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")
        self.join()
        self.pool: RayPool | None = None

    def join(self, **node: Any) -> Any:
        node = {"num_cpus": 1, "object_store_memory": STORE, **node}
        self.nodes.append(self.cluster.add_node(**node))
        return self.nodes[-1]

    def kill(self, node: Any) -> None:
        """SIGKILL its raylet, if it is still there; the processes on it die after it."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def work(self, done: Callable[[], object]) -> list[JobResult]:
        """Keep the pool busy until ``done``, then to its end."""
        results, until = [], time.monotonic() + PATIENCE_S / 2
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{len(results)} results; events: {self.pool.events()}")
            while self.pool.pending < 6:
                (job,) = naps(self.spec, 1)
                self.pool.submit(job)
            results.append(self.pool.wait())
        return results + [self.pool.wait() for _ in range(self.pool.pending)]

    def start(self, nodes: int = 1, **pool: Any) -> None:
        """Begin with so many nodes of one processor each, and hosts that follow them."""
        self.stop()
        for node in self.nodes[nodes:]:
            self.kill(node)
        while len(self.nodes) < nodes:
            self.join()
        self.pool = RayPool(self.spec, **{"hosts": None, **pool})
        self.pool.events()

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.close()

    def account(self, results: list[JobResult], began: float) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - began, 2),
            "errors": [r.error for r in results if r.error],
            "attempts": sorted({r.job.attempt for r in results}),
            "twice": len(results) - len({r.job.key for r in results}),
            "by": sorted({r.host for r in results}),
            "hosts": sorted(self.pool.host_pids),
            "events": [[e.kind, e.detail] for e in self.pool.events()],
        }

    def node_joins_and_is_lost(self) -> dict[str, Any]:
        self.start()
        began = time.monotonic()
        node = self.join()
        results = self.work(lambda: self.pool.hosts == 2)
        joined = self.account(results, began)
        for job in naps(self.spec, 8):
            self.pool.submit(job)
        results = [self.pool.wait()]
        began = time.monotonic()
        self.kill(node)
        results += [self.pool.wait() for _ in range(7)]
        return {"joined": joined, "lost": self.account(results, began)}

    def node_is_drained(self) -> dict[str, Any]:
        self.start(nodes=2)
        node = self.nodes[1]
        for job in naps(self.spec, 8):
            self.pool.submit(job)
        results = [self.pool.wait()]
        began = time.monotonic()
        self.drain(node)
        results += [self.pool.wait() for _ in range(7)]
        drained = self.account(results, began)
        self.work(lambda: node.node_id not in alive())
        drained["gone_after"] = time.monotonic() - began
        self.kill(node)
        drained["events"] += [[e.kind, e.detail] for e in self.pool.events()]
        return drained

    def drain(self, node: Any) -> None:
        from ray.core.generated import autoscaler_pb2

        client = ray._raylet.GcsClient(address=self.cluster.address)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = client.drain_node(node.node_id, reason, "test", 0)
        assert accepted, why

    def answers_are_lost(self) -> dict[str, Any]:
        """A node goes with answers that are done and that the scorer did not come to fetch."""
        self.start(nodes=2)
        recipes = [j.recipe for j in naps(self.spec, 8)]
        os.kill(self.pool.scorer_pid, signal.SIGSTOP)
        for job in jobs_for(self.spec, "long_answer", recipes):
            self.pool.submit(job)
        began = time.monotonic()

        def strike() -> None:
            self.kill(self.nodes[1])
            os.kill(self.pool.scorer_pid, signal.SIGCONT)

        threading.Timer(3, strike).start()
        return self.account([self.pool.wait() for _ in range(8)], began)

    def fixed_number_is_refilled(self) -> dict[str, Any]:
        self.start(nodes=2, hosts=2)
        began = time.monotonic()
        self.kill(self.nodes[1])
        results = self.work(lambda: self.pool.hosts == 1)
        self.join()
        results += self.work(lambda: self.pool.hosts == 2)
        return self.account(results, began)

    def fractions_and_labels(self) -> dict[str, Any]:
        """Hosts on half a GPU each; Ray takes our word that there are GPUs."""
        self.stop()
        right = self.join(num_cpus=4, num_gpus=1, labels={"zone": "gpu"})
        self.join(num_cpus=4, num_gpus=1, labels={"zone": "other"})
        found: dict[str, Any] = {}
        for name, hosts in (("auto", None), ("one", 1)):
            self.pool = RayPool(self.spec, hosts=hosts, gpus=0.5, labels={"zone": "gpu"})
            nodes = [e.detail.split("node ")[1][:8] for e in self.pool.events()]
            found[name] = [node == right.node_id[:8] for node in nodes]
            self.pool.close()
        try:
            RayPool(self.spec, hosts=None, labels={"zone": "nowhere"})
        except PoolError as error:
            found["nowhere"] = str(error)
        return found

    def cluster_in_use(self) -> dict[str, Any]:
        """One of two nodes is somebody else's for now: a pool begins without it."""
        self.stop()
        while len(self.nodes) < 2:
            self.join()
        other = ray.remote(Occupant).options(num_cpus=1).remote()
        ray.get(other.hello.remote())
        ray_pool.LATECOMERS_S = 1
        self.start(nodes=2)
        began = time.monotonic()
        first = self.pool.hosts
        ray.kill(other)
        return {"first": first, **self.account(self.work(lambda: self.pool.hosts == 2), began)}

    def all_nodes_are_lost(self) -> dict[str, Any]:
        self.start()
        self.pool.start_timeout_s = 4
        self.kill(self.nodes[0])
        began = time.monotonic()
        try:
            self.work(lambda: False)
        except PoolError as error:
            return {"error": str(error), "seconds": time.monotonic() - began}
        finally:
            self.join()
        return {}

    def close(self) -> None:
        self.stop()
        ray.shutdown()
        self.cluster.shutdown()


def alive() -> set[str]:
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}


def main() -> None:
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray writes to standard output when nodes die
    driver = Driver()
    try:
        for line in sys.stdin:
            try:
                found = getattr(driver, line.strip())()
            except Exception:
                found = {"failed": traceback.format_exc()}
            channel.write(json.dumps(found) + "\n")
    finally:
        driver.close()


if __name__ == "__main__":
    main()
