"""Run the same function over many jobs: one after another, in processes, or on Ray."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Literal, TypeVar, get_args

from weft.data.errors import WorkerDiedError, needed, require_known

Engine = Literal["serial", "processes", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)
J = TypeVar("J")
R = TypeVar("R")


def check_engine(engine: str) -> None:
    """Refuse an unknown engine, or Ray where it is not installed, before any work starts.

    Raises:
        UnknownNameError: For an unknown engine.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    require_known("engine", ENGINES, engine)
    if engine == "ray":
        _import_ray()


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], engine: Engine, workers: int) -> Iterator[R]:
    """Yield the result of every job; the order is that of the jobs, except on Ray.

    Args:
        function: A function of a module; a job that was interrupted may be given to it again.
        jobs: Its arguments; must pickle, except for "serial".
        engine: "serial", "processes" (a pool of fresh interpreters), or "ray" (Ray Data, which repeats the
            jobs of a worker that died).
        workers: Processes of the pool, or jobs at a time on Ray.

    Raises:
        WorkerDiedError: If a process of the pool dies; what it had finished is kept.
    """
    check_engine(engine)
    if engine == "serial":
        return map(function, jobs)
    return (_run_processes if engine == "processes" else _run_ray)(function, jobs, workers)


def _run_processes(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[R]:
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(function, jobs)
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            f"All {workers} worker processes must live to the end, but a worker process died; it may have run out of "
            "memory. Call again with the same arguments to resume, with fewer workers if need be."
        ) from error


def _run_ray(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[R]:
    import pickle

    ray_data = _import_ray()

    def run(row: dict[str, Any]) -> dict[str, bytes]:
        return {"result": pickle.dumps(function(pickle.loads(row["job"])))}  # noqa: S301  (pickled by this process, for its own workers)

    rows = ray_data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    pool = ray_data.TaskPoolStrategy(size=workers)
    for row in rows.map(run, compute=pool).iter_rows():
        yield pickle.loads(row["result"])  # noqa: S301  (pickled by this process, for its own workers)


def _import_ray() -> Any:
    return needed("ray.data", "The engine 'ray'", "Ray", "'ray[data]'")
