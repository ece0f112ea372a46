"""The command line. A user's own mistake prints one sentence and exits with 2."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from peeralign.commands import (
    asking,
    bridging,
    comparing,
    evaluating,
    exporting,
    grading,
    measuring,
    schooling,
    scoring,
)
from peeralign.config import build, commented_defaults, lay_over, override, read_toml
from peeralign.distributed import StoppedElsewhere, is_main
from peeralign.errors import PeeralignError, nearest
from peeralign.progress import Reporter
from peeralign.store.run import INPUTS, Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Improve vision-language models without labels, by a panel of their peers.",
)
app.command()(asking.ask)
app.command()(asking.consistency)
app.command()(grading.judge)
app.command("critic-data")(schooling.critic_data)
app.command()(schooling.critic)
app.command("judge-eval")(measuring.judge_eval)
app.command("eval")(evaluating.evaluate)
app.command()(scoring.score)
app.command()(comparing.compare)
app.command()(exporting.export)
app.command("lmms-eval")(bridging.lmms_eval)
classroom_app = typer.Typer(no_args_is_help=True, help="The embedded classroom and its peers.")
app.add_typer(classroom_app, name="classroom")

OutOption = Annotated[Path | None, typer.Option(help="Folder of the run.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting: key=value.")
]
RECIPES = ("pop", "seva", "stic", "llava_critic")
SECONDS_FOR_MAIN = 10.0


def _console() -> Console:
    return Console(stderr=False, soft_wrap=True)


def _recipe(name: str) -> ModuleType:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise PeeralignError(f"no recipe at {path}: the file does not exist")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        for needed in ("Config", "run"):
            if not hasattr(module, needed):
                raise PeeralignError(f"{path} is no recipe: it has no '{needed}'")
        return module
    if name not in RECIPES:
        raise PeeralignError(
            f"no recipe named '{name}', there are {', '.join(RECIPES)}{nearest(name, RECIPES)}"
        )
    return importlib.import_module(f"peeralign.recipes.{name}")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe's TOML file.")],
    out: OutOption = None,
    assignments: SetOption = None,
    further: Annotated[
        list[Path] | None,
        typer.Option("--with", help="TOML file laid over the recipe; the last one wins."),
    ] = None,
) -> None:
    """Run a recipe on your own data and models; the same command again resumes it."""
    files = [recipe, *(further or [])]
    settings = override(functools.reduce(lay_over, map(read_toml, files)), assignments or [])
    name = str(settings.pop("recipe", "pop"))
    folder = out or Path("runs") / recipe.stem
    _run_and_show(name, settings, folder, " with ".join(map(str, files)))


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the data and of the run.")] = 0,
    exam_seed: Annotated[int, typer.Option(help="Seed of the exam's questions.")] = 1,
    out: OutOption = None,
    assignments: SetOption = None,
) -> None:
    """Panel of Peers with three tiny real models on the embedded classroom (minutes, CPU)."""
    from peeralign.classroom.demo import demo_settings

    settings = override(demo_settings(seed, exam_seed), assignments or [])
    _run_and_show("pop", settings, out or Path("runs") / "demo", "demo")


def _run_and_show(name: str, settings: dict[str, Any], folder: Path, source: str) -> None:
    from peeralign.classroom.demo import in_folder, tables_in, write_classroom
    from peeralign.report import write_report
    from peeralign.report.terminal import print_summary

    console = _console()
    recipe = _recipe(name)
    config = build(recipe.Config, in_folder(settings, folder / INPUTS), source)
    Run.check_usable(folder)
    # The others wait for it where the recipe lets them meet.
    if is_main():
        write_classroom(folder / INPUTS, tables_in(settings), Reporter(console))
    summary = recipe.run(config, folder, Reporter(console))
    if not is_main():
        return
    print_summary(summary, console)
    console.print(f"report: {write_report(folder)}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write RUN/report.html: one self-contained page with scores, judges, yields and pairs."""
    from peeralign.report import write_report

    _console().print(f"report: {write_report(folder)}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    table: Annotated[
        str, typer.Argument(help="candidates, judgments, comparisons, rewards or pairs.")
    ],
    round_number: Annotated[int | None, typer.Option("--round", help="One round only.")] = None,
    question: Annotated[str | None, typer.Option(help="Question id, or text in it.")] = None,
    member: Annotated[str | None, typer.Option(help="Author or judge.")] = None,
    category: Annotated[str | None, typer.Option(help="Question category.")] = None,
    unscored: Annotated[
        bool, typer.Option(help="Only what has no text, score, verdict or reward.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Rows to print; 0 prints all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print rows of a run's tables."""
    from peeralign.report.rows import select_rows
    from peeralign.report.terminal import show_rows

    rows = select_rows(folder, table, round_number, question, member, category, unscored)
    show_rows(rows, table, limit, as_json, _console())


@app.command()
def exam(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    questions: Annotated[Path, typer.Argument(help="Exam file (Parquet).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Examine every round's members of a finished run on another exam."""
    import json

    from peeralign.recipes.afterwards import examine_again
    from peeralign.report.terminal import print_summary

    console = _console()
    rounds = examine_again(folder, questions, Reporter(None if as_json else console))
    if not is_main():
        return
    if as_json:
        print(json.dumps({"rounds": rounds}))
    else:
        print_summary({"rounds": rounds}, console)


@app.command("config")
def config_command(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name, critic_data, eval, or a recipe's .py file.")
    ],
) -> None:
    """Print a recipe's settings as TOML, each with its meaning and default."""
    if recipe == evaluating.SUITE:
        print(commented_defaults(evaluating.suite_settings()), end="")
        return
    module = schooling.sources_module() if recipe == schooling.SOURCES else _recipe(recipe)
    print(f'recipe = "{recipe}"\n\n{commented_defaults(module.Config)}', end="")


@app.command()
def doctor(
    member: Annotated[
        list[str] | None, typer.Option(help="A member to try: folder, hub name, classroom:NAME.")
    ] = None,
    rubric: Annotated[str, typer.Option(help="Rubric to try it with.")] = "five_axis",
    trust_remote_code: Annotated[bool, typer.Option(help="Let it run its own code.")] = False,
) -> None:
    """Check versions, devices and known traps; with --member, whether it loads and judges."""
    from peeralign.doctor import examine

    if not examine(member or [], rubric, trust_remote_code, _console()):
        raise typer.Exit(1)


@app.command()
def align(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub name.")],
    data: Annotated[str, typer.Argument(help="Parquet or JSONL: image, prompt, response.")],
    out: Annotated[Path, typer.Option(help="Where the trained checkpoint goes.")],
    assignments: SetOption = None,
) -> None:
    """Base training, stage I: captions, the projector alone (LLaVA-1.5's recipe)."""
    from peeralign.recipes.sft import ALIGN

    _base_training(ALIGN, model, data, out, assignments)


@app.command()
def sft(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub name.")],
    data: Annotated[str, typer.Argument(help="Parquet or JSONL: image, prompt, response.")],
    out: Annotated[Path, typer.Option(help="Where the trained checkpoint goes.")],
    assignments: SetOption = None,
) -> None:
    """Base training, stage II: instructions, projector and language model (LLaVA-1.5's recipe)."""
    from peeralign.recipes.sft import SFT

    _base_training(SFT, model, data, out, assignments)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub name.")],
    data: Annotated[str, typer.Argument(help="Parquet, JSONL: image, question, chosen, rejected.")],
    out: Annotated[Path, typer.Option(help="Where the trained checkpoint goes.")],
    assignments: SetOption = None,
) -> None:
    """Train one model on your own preferences; the same command again resumes it."""
    from peeralign.recipes.prefer import PreferConfig, train_on_preferences

    config = build(PreferConfig, override({}, assignments or []), "--set")
    console = _console()
    folder = train_on_preferences(model, data, out, config, Reporter(console))
    if is_main():
        console.print(f"checkpoint: {folder}")


@app.command()
def augment(
    image: Annotated[Path, typer.Argument(help="Image to show: PNG, JPEG, WebP, BMP, GIF, TIFF.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    view: Annotated[
        list[str] | None, typer.Option(help='Only this view, as "moco" or "low_resolution(20)".')
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first of the three seeds.")] = 0,
) -> None:
    """Draw one picture of what the augmentations make of an image, each under three seeds."""
    from peeralign.images.sheet import sheet_png
    from peeralign.store.run import write_whole

    if out.suffix.lower() != ".png" or out.is_dir():
        raise PeeralignError(f"{out} cannot hold the sheet; name a file that ends in .png")
    if out.exists() and image.exists() and out.samefile(image):
        raise PeeralignError(f"{out} is the image itself; name another file for the sheet")
    write_whole(out, sheet_png(image, view or [], seed))
    _console().print(f"sheet: {out}")


def _base_training(
    defaults: dict[str, Any], model: str, data: str, out: Path, assignments: list[str] | None
) -> None:
    from peeralign.recipes.sft import SftConfig, train_on_demonstrations

    config = build(SftConfig, override(defaults, assignments or []), "--set")
    console = _console()
    folder = train_on_demonstrations(model, data, out, config, Reporter(console))
    if is_main():
        console.print(f"checkpoint: {folder}")


@classroom_app.command("build")
def classroom_build(
    out: Annotated[Path, typer.Option(help="Folder for the peers' checkpoints.")],
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer.")] = None,
) -> None:
    """Rebuild the shipped peers from nothing (about half an hour on 2 cores)."""
    from peeralign.classroom.school import build_peers

    build_peers(out, peer or [], Reporter(_console()))


@classroom_app.command("exam")
def classroom_exam(
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    seed: Annotated[int, typer.Option(help="Seed of the questions.")] = 1,
) -> None:
    """Write a classroom exam, with answers."""
    from peeralign.classroom.demo import draw_exam
    from peeralign.store.run import write_table

    write_table(out, draw_exam(seed))
    _console().print(f"exam: {out}")


def guarded(command: Callable[[], None]) -> int:
    """Run `command`; the exit code, after printing a user's mistake as one sentence."""
    try:
        command()
    except PeeralignError as error:
        if not is_main():
            # Most mistakes are every process's. The main one says so and ends, at which the
            # launcher ends this one; still being here means that it is this one's alone.
            time.sleep(SECONDS_FOR_MAIN)
            if isinstance(error, StoppedElsewhere):
                return 2
        sentence = Text.assemble(("error:", "red"), " ", str(error))
        Console(stderr=True, soft_wrap=True).print(sentence)
        return 2
    except SystemExit as stop:
        if stop.code == 130 and is_main():
            Console(stderr=True).print("stopped; the same command again goes on from here")
        raise
    return 0


def main() -> None:
    """Entry point of the `peeralign` command."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
