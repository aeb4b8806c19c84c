"""`weft serve`: a run behind OpenAI's interface."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

HERE = ("127.0.0.1", "localhost")  # where nobody but this machine may ask


def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Maximum number of questions answered together.")
    ] = 16,
    image_host: Annotated[
        list[str] | None,
        typer.Option(help="Fetch images from this host (may be repeated); by default from none."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds until an answer must be ready.")] = 120.0,
) -> None:
    """Answer questions of all tasks of a run at /v1/chat/completions, where `model` names the task."""
    import uvicorn

    from weft.data import Conversation
    from weft.eval.serving.endpoint import ServingLimits, make_app
    from weft.eval.serving.pictures import PictureLimits, hosts_of_environment
    from weft.train.runs.served import load_served

    served = load_served(run)
    hosts = (*hosts_of_environment(), *(image_host or ()))
    limits = ServingLimits(picture=PictureLimits(hosts=hosts), seconds=seconds, batch_size=batch_size)
    tasks = {name: served.recipe.tasks[name].max_new_tokens for name in served.types}
    sys.stdout.write(f"http://{host}:{port}/v1/chat/completions answers as {', '.join(tasks)}\n")
    sys.stdout.flush()
    talks = [name for name, kind in served.types.items() if kind == Conversation.record_type]
    names = HERE if host in HERE else ()
    app = make_app(served.answer, tasks, limits, talks, names)
    uvicorn.run(app, host=host, port=port, log_level="warning")
