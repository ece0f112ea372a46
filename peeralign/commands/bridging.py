"""The command `peeralign lmms-eval`: lmms-eval's tasks, answered by a member."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from peeralign.commands.grading import members_of
from peeralign.errors import PeeralignError
from peeralign.progress import Reporter

# Nothing that lmms-eval brings reports anywhere.
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "disabled",
    "WANDB_DISABLED": "true",
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


def lmms_eval(
    member: Annotated[str, typer.Option(help="A model, or a TOML file of a member.")],
    tasks: Annotated[str, typer.Option(help="Names of lmms-eval's tasks: chartqa,pope.")],
    out: Annotated[Path, typer.Option(help="Folder for results, samples and rows.")],
    include_path: Annotated[
        str | None, typer.Option(help="Folder of further task files, over local data for one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest reply where a task does not say; 1024.")
    ] = None,
    max_image_pixels: Annotated[
        int | None, typer.Option(min=1, help="Larger images are not opened; 64,000,000.")
    ] = None,
    image_root: Annotated[
        str | None, typer.Option(help="Folder of images whose data hold paths only.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of replies with a temperature.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run lmms-eval's tasks on a member, where lmms-eval is installed (docs/bridge.md)."""
    os.environ.update(_QUIET | (_OFFLINE if offline else {}))
    import json

    from peeralign.evals.bridge.run import Settings, run_tasks
    from peeralign.images.load import MAX_PIXELS

    (answering,) = members_of([member], "member")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise PeeralignError("no task was named; give --tasks names of lmms-eval's, as chartqa")
    settings = Settings(
        include_path=include_path,
        limit=limit,
        max_new_tokens=max_new_tokens,
        max_image_pixels=max_image_pixels or MAX_PIXELS,
        image_root=image_root,
        seed=seed,
    )
    console = Console(stderr=as_json, soft_wrap=True)
    results = run_tasks(answering, names, out, settings, Reporter(console))
    if as_json:
        print(json.dumps(results))
        return
    for line in lines_of(results):
        console.print(line, highlight=False, markup=False)
    console.print(f"results: {out / 'results.json'}", highlight=False)


def lines_of(results: dict[str, Any]) -> list[str]:
    """What a user reads of the results."""
    lines = []
    for name, said in results["peeralign"]["tasks"].items():
        figures = {
            key.split(",")[0]: value
            for key, value in results["results"].get(name, {}).items()
            if isinstance(value, int | float) and "," in key and "stderr" not in key
        }
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        lines.append(f"{name}, {said['num_items']} items: {shown or 'no figure'}")
        if "score" in said:
            score = said["score"]
            between = score["interval"]
            spread = f" ({between[0]:.4g} to {between[1]:.4g})" if between else ""
            number = "none" if score["score"] is None else f"{score['score']:.4g}"
            lines.append(
                f"  by our lmms-eval protocol: {score['headline']} {number}{spread}, "
                f"{score['parse_failure_rate']:.1%} not read"
            )
        if "no_rows" in said:
            lines.append(f"  no rows of ours: {said['no_rows']}")
        if said["num_unanswered"]:
            why = ", ".join(f"{number} {reason}" for reason, number in said["reasons"].items())
            lines.append(
                f"  {said['num_unanswered']} without a reply ({why}), scored as empty replies"
            )
    if ignored := results["peeralign"]["ignored"]:
        named = ", ".join(f"{key} = {value}" for key, value in ignored.items())
        lines.append(f"settings of tasks that members do not have: {named}")
    return lines
