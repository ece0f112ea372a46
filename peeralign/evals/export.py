"""Predictions of an evaluation as files that VLMEvalKit evaluates, one a benchmark and member.

The columns are those that VLMEvalKit's `evaluate` of each data set reads (at e8e78f0), beside `id`,
which is ours. It takes right answers for options from its own data set, by `index`: so these
benchmarks are exported only if they were asked from VLMEvalKit's own file. Its code is not used.
"""

from __future__ import annotations

import csv
import io
import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peeralign.errors import PeeralignError, nearest
from peeralign.escape import without_surrogates
from peeralign.evals.benchmarks import find
from peeralign.store.files import json_objects, reading
from peeralign.store.run import write_whole

Row = Mapping[str, Any]
Columns = dict[str, Any]
# What pandas, with which VLMEvalKit reads its files, takes for a missing value, quoted or not.
MISSING = frozenset(
    [
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    ]
)


class _LeftOut(Exception):
    """Why a benchmark cannot be exported."""


@dataclass(frozen=True)
class _Form:
    datasets: Mapping[str, str]
    """Split -> name of VLMEvalKit's data set; "" is any other split."""
    columns: Callable[[Row], Columns]
    by_index: bool = False
    """Whether VLMEvalKit looks rows up in its own data set."""


@dataclass(frozen=True)
class Exported:
    """One file."""

    benchmark: str
    member: str
    dataset: str
    path: str
    num_rows: int
    num_missing: int
    """Predictions that are missing, or that pandas reads as if they were ("None")."""


def export_vlmevalkit(
    folder: Path, out: Path, datasets: Mapping[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Write OUT/MEMBER/MEMBER_DATASET.tsv for the rows of an evaluation's folder.

    `datasets` gives VLMEvalKit's data set for a benchmark, in place of the usual one. Returns
    `files` (as `Exported`) and `left_out` (benchmark, reason). Raises PeeralignError if the folder
    holds no rows.
    """
    named = {_plain(name): dataset for name, dataset in (datasets or {}).items()}
    places = sorted((folder / "rows").glob("*/*.jsonl"))
    if not places:
        raise PeeralignError(
            f"no predictions in {folder}: it has no rows/BENCHMARK/MEMBER.jsonl; give the folder "
            "that 'peeralign eval' or 'peeralign lmms-eval' wrote"
        )
    absent = sorted(set(named) - {path.parent.name for path in places})
    if absent:
        raise PeeralignError(f"{folder} has no rows of {absent[0]}, for which a data set is given")
    layouts = _layouts(folder)
    files: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for path in places:
        name, member = path.parent.name, path.stem
        try:
            form = _form_of(name)
            layout, split = layouts.get(name, ("", ""))
            if form.by_index and "VLMEvalKit" not in layout:
                raise _LeftOut(
                    "VLMEvalKit looks its questions up by the numbers of its own file, and these "
                    "were not asked from it"
                )
            dataset = named.get(name) or form.datasets.get(split, form.datasets[""])
            with reading(path):
                rows = list(json_objects(path))
            table = _table(rows, form)
        except _LeftOut as why:
            left_out.setdefault(name, str(why))
            continue
        place = out / member / f"{member}_{dataset}.tsv"
        write_whole(place, _as_tsv(table))
        num_missing = sum(line["prediction"] in MISSING for line in table)
        files.append(asdict(Exported(name, member, dataset, str(place), len(table), num_missing)))
    return {
        "files": files,
        "left_out": [{"benchmark": name, "reason": why} for name, why in left_out.items()],
    }


def _plain(name: str) -> str:
    find(name)
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _layouts(folder: Path) -> dict[str, tuple[str, str]]:
    """Benchmark -> the layout and the split that it was asked from, as figures.json has them."""
    place = folder / "figures.json"
    if not place.is_file():
        return {}
    try:
        listed = json.loads(place.read_text(encoding="utf-8"))["benchmarks"]
        return {
            each["name"]: (str(each.get("layout") or ""), str(each.get("split") or ""))
            for each in listed
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeeralignError(
            f"{place} is not what 'peeralign eval' writes ({type(error).__name__}); write it anew"
        ) from error


def _form_of(name: str) -> _Form:
    if name in _FORMS:
        return _FORMS[name]
    if name in _WHY_NOT:
        raise _LeftOut(_WHY_NOT[name])
    raise _LeftOut(f"no benchmark has this name{nearest(name, _FORMS)}")


def _table(rows: Sequence[Row], form: _Form) -> list[Columns]:
    if not rows:
        raise _LeftOut("its file holds no rows")
    numbers = [str(row.get("index") or row.get("id")) for row in rows]
    # Where nothing is looked up by it, the index is only to be unique.
    are_whole = all(number.isascii() and number.isdigit() for number in numbers)
    if form.by_index and not are_whole:
        raise _LeftOut("it was not asked by the whole numbers (index) of VLMEvalKit's file")
    table = []
    for place, row in enumerate(rows):
        try:
            columns = form.columns(row)
            index = int(numbers[place]) if are_whole else place
            line = {
                "index": columns.pop("index", index),
                "question": row["question"],
                **columns,
                "prediction": row["prediction"],
                "id": row.get("id"),
            }
        except KeyError as missing:
            raise _LeftOut(f"row {place + 1} has no {missing}, which VLMEvalKit needs") from None
        table.append({key: _cell(value) for key, value in line.items()})
    return table


def _cell(value: Any) -> str:
    return "" if value is None else without_surrogates(str(value))


def _as_tsv(table: Sequence[Columns]) -> bytes:
    """Every field quoted: tabs, line breaks and quotes in it are read back as they are."""
    names = list(dict.fromkeys(name for line in table for name in line))
    # VLMEvalKit's options are columns A, B and on; a question with fewer leaves the rest empty.
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(
        buffer, names, restval="", delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue().encode()


def _answers(row: Row) -> list[str]:
    given = row["answers"] if "answers" in row else row["answer"]
    return [str(each) for each in given] if isinstance(given, list) else [str(given)]


def _one_or_list(row: Row) -> str:
    """One answer as it is, several as the text of a list."""
    answers = _answers(row)
    return answers[0] if len(answers) == 1 else str(answers)


def _some(row: Row, **names: str) -> Columns:
    """Columns that VLMEvalKit groups by, where the row has what they show."""
    return {column: row[key] for column, key in names.items() if row.get(key) is not None}


def _words(row: Row) -> Columns:
    return {"answer": _one_or_list(row), **_some(row, split="split", category="category")}


def _textvqa(row: Row) -> Columns:
    return {"answer": str(_answers(row))}


def _ocrbench(row: Row) -> Columns:
    return {"answer": str(_answers(row)), "category": row["category"]}


def _yes_or_no(row: Row) -> str:
    return str(row["answer"]).strip().capitalize()


def _pope(row: Row) -> Columns:
    return {"answer": _yes_or_no(row), "category": row["category"]}


def _mme(row: Row) -> Columns:
    return {**_pope(row), "image_path": row["image"]}


def _hallusion(row: Row) -> Columns:
    parts = [row[key] for key in ("category", "subcategory", "set_id", "figure_id", "question_id")]
    # The rating takes the last three from the index, behind three parts of any kind.
    index = "_".join(str(part).replace("_", "-") for part in (row["id"], *parts))
    groups = {"category": parts[0], "l2-category": parts[1]}
    return {"index": index, "answer": _yes_or_no(row), **groups}


def _options(row: Row) -> Columns:
    texts = dict(zip(string.ascii_uppercase, row.get("choices") or [], strict=False))
    groups = {"category": "category", "l2-category": "l2_category", "split": "split"}
    return {**texts, "answer": _one_or_list(row), **_some(row, **groups)}


def _mathvista(row: Row) -> Columns:
    choices, answer = row.get("choices"), str(row["answer"])
    columns = {
        "answer": answer,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": row["answer_type"],
        "task": row["task"],
        "skills": str(list(row["skills"])),
    }
    if not choices:
        return columns
    letters = [
        letter
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
        if str(choice) == answer
    ]
    if not letters:
        raise _LeftOut(f"the answer of row {row['id']} is none of its options")
    return {**columns, "choices": str(list(map(str, choices))), "answer_option": letters[0]}


def _mmvet(row: Row) -> Columns:
    return {"answer": row["answer"], "category": ",".join(row["capabilities"])}


def _always(name: str) -> dict[str, str]:
    return {"": name}


_FORMS = {
    "ai2d": _Form(_always("AI2D_TEST"), _options, by_index=True),
    "chartqa": _Form(_always("ChartQA_TEST"), _words),
    "gqa": _Form(_always("GQA_TestDev_Balanced"), _words),
    "hallusionbench": _Form(_always("HallusionBench"), _hallusion),
    "mathvista": _Form(_always("MathVista_MINI"), _mathvista),
    "mmbench": _Form({"": "MMBench_DEV_EN", "test": "MMBench_TEST_EN"}, _options, by_index=True),
    "mme": _Form(_always("MME"), _mme),
    "mmmu": _Form({"": "MMMU_DEV_VAL", "test": "MMMU_TEST"}, _options, by_index=True),
    "mmstar": _Form(_always("MMStar"), _options, by_index=True),
    "mmvet": _Form(_always("MMVet"), _mmvet),
    "ocrbench": _Form(_always("OCRBench"), _ocrbench),
    "ocrvqa": _Form(_always("OCRVQA_TESTCORE"), _words),
    "pope": _Form(_always("POPE"), _pope),
    "realworldqa": _Form(_always("RealWorldQA"), _options, by_index=True),
    "scienceqa": _Form(
        {"": "ScienceQA_TEST", **dict.fromkeys(("val", "validation"), "ScienceQA_VAL")},
        _options,
        by_index=True,
    ),
    "seedbench": _Form(_always("SEEDBench_IMG"), _options, by_index=True),
    "textvqa": _Form(_always("TextVQA_VAL"), _textvqa),
}
_WHY_NOT = {
    "chair": "VLMEvalKit does not have it",
    "llavabench": "VLMEvalKit's judge needs captions and GPT-4's answers, which rows do not have",
    "mmhal": "VLMEvalKit does not have it in this form",
}
