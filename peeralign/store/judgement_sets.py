"""Read published sets that judges are measured on: what to judge, and what people said of it.

Local files in the layouts as they are published (looked at in November 2026), told apart by their
columns; nothing is downloaded:

* MLLM-as-a-Judge (Chen et al., 2024; Dongping-Chen/MLLM-Judge on GitHub, ``Dataset/Benchmark``),
  JSON lines with ``id, image_path, original_dataset, instruction`` and
  - score: ``score_id, name, answer, human`` (1 to 5, often as text),
  - pair: ``pair_id, answer1, answer2`` (each ``{"name", "answer"}``), ``human_answer`` (A, B, or C
    for a tie),
  - batch: ``answers`` (a list of the same), ``human_answer`` ("CDAB": best first).
* VL-RewardBench (Li et al., 2024; MMInstruction/VL-RewardBench on the hub, Parquet, or the JSON
  lines of its GitHub repository): ``id, query, response`` (two), ``image`` or ``image_path``,
  ``human_ranking`` ([0, 1]: the first is better), ``models``. The better answer is the first in
  nearly all rows of the repository's file: show it in both orders. Its three groups are told by
  the ids, as in ``cal.py`` of the repository.
* Multimodal RewardBench (Yasunaga et al., 2025; facebookresearch/multimodal_rewardbench,
  ``data/all_data.json``, a list): ``ID, Text, Image, Output1, Output2, Better`` ("Output1" or
  "Output2"), ``Category``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.escape import without_surrogates
from peeralign.images.load import MAX_PIXELS
from peeralign.records import IMAGE_DTYPE
from peeralign.store.conversations import IMAGE_MARK, Unusable
from peeralign.store.files import ImageRoot, json_objects, listed, reading
from peeralign.store.rows import ImageReader

JUDGEMENT_SET_SCHEMA = pl.Schema(
    {
        # Unique in its table.
        "id": pl.String,
        # The question: rows of one item are about one image and question.
        "item": pl.String,
        "set": pl.String,
        "image": IMAGE_DTYPE,
        "question": pl.String,
        # Who wrote the answers, and the answers; one, two, or several.
        "models": pl.List(pl.String),
        "answers": pl.List(pl.String),
        # What people said: the one of these that is not null. Rankings are of `models`, best first.
        "score": pl.Float64,
        "verdict": pl.String,
        "ranking": pl.List(pl.String),
    }
)
# VL-RewardBench: the sources of which an id's start tells (`get_dataset_from_id` in cal.py).
_GROUPS = {
    "wildvision": "general",
    "hallucination": "hallucination",
    "RLAIF": "hallucination",
    "RLHF": "hallucination",
    "mathverse": "reasoning",
    "mmmu": "reasoning",
}
SET_ASIDE_SCHEMA = pl.Schema({"id": pl.String, "reason": pl.String})
# Which of them a table has: all rows of a file the same.
REFERENCES = ("score", "verdict", "ranking")
Row = dict[str, Any]


def read_judgement_set(
    path: str | Path,
    image_root: str | Path | None = None,
    need_images: bool = False,
    max_image_pixels: int = MAX_PIXELS,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A published file's rows (JUDGEMENT_SET_SCHEMA), and what was set aside (id, reason).

    Image paths are relative to `image_root`, by default the file's folder, and may not leave it. A
    row whose image is not there has none. With `need_images` each image is opened, and a row whose
    image is missing, broken or of more than `max_image_pixels` is set aside.

    Raises PeeralignError for a file that cannot be read, is of no known layout, or has no usable
    row.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "the file does not exist"
        raise PeeralignError(f"no judgement set at {path}: {what}")
    given = _rows_of(file)
    layout = _layout(file, given)
    root = Path(image_root).expanduser() if image_root else file.parent
    if not root.is_dir():
        raise PeeralignError(f"no folder at {root}; set image_root to the folder of the images")
    images = ImageReader(ImageRoot(root), max_image_pixels)
    usable, set_aside = [], []
    for number, row in enumerate(given, start=1):
        try:
            entry = layout(row)
            entry["image"] = _image(row, images, need_images)
        except Unusable as reason:
            set_aside.append((f"row {number}", str(reason)))
            continue
        entry["id"] = str(number) if entry["id"] is None else entry["id"]
        entry["item"] = entry["id"] if entry["item"] is None else entry["item"]
        usable.append(entry)
    if not usable:
        why = f": {set_aside[0][0]} was set aside for '{set_aside[0][1]}'" if set_aside else ""
        raise PeeralignError(f"{path} holds no usable row{why}")
    table = _unique(pl.DataFrame(usable, schema=JUDGEMENT_SET_SCHEMA))
    return table, pl.DataFrame(set_aside, schema=SET_ASIDE_SCHEMA, orient="row")


def in_both_orders(table: pl.DataFrame) -> pl.DataFrame:
    """The table with every pair twice, the second time with its answers and verdict swapped.

    The second one's id ends in "/swapped"; its item stays. Rows without a verdict stay as they are.
    """
    swapped = table.filter(pl.col("verdict").is_not_null()).with_columns(
        pl.col("id") + "/swapped",
        pl.col("models", "answers").list.reverse(),
        pl.col("verdict").replace({"A": "B", "B": "A"}),
    )
    return pl.concat([table, swapped])


def verdict_rows(
    table: pl.DataFrame, said: Mapping[str, Any], without_image: Mapping[str, Any] | None = None
) -> list[Row]:
    """Rows for `peeralign judge-eval`, from what a judge said of each id of a table.

    `said` holds a number where people gave a score, "A", "B" or "tie" where they gave a verdict,
    and the models' names, best first, where they ranked; None or an absent id is unscored.
    `without_image` holds the same for black images, if they were shown.
    """
    rows = []
    for entry in table.drop("image").iter_rows(named=True):
        row = {"item": entry["item"], "set": entry["set"]}
        models, answers = entry["models"], entry["answers"]
        given = said.get(entry["id"])
        kind = next(name for name in REFERENCES if entry[name] is not None)
        if kind == "score":
            row |= {"model": models[0], "answer": answers[0]}
        elif kind == "verdict":
            row |= {"model_a": models[0], "model_b": models[1]}
            row |= {"answer_a": answers[0], "answer_b": answers[1]}
        row |= {kind: given, "reference": entry[kind]}
        if without_image is not None:
            row[f"{kind}_without_image"] = without_image.get(entry["id"])
        rows.append(row)
    return rows


def _rows_of(file: Path) -> list[Row]:
    suffix = file.suffix.lower()
    with reading(file):
        if suffix == ".parquet":
            return pl.read_parquet(file, glob=False, hive_partitioning=False).to_dicts()
        if suffix in (".jsonl", ".ndjson"):
            return list(json_objects(file))
        if suffix == ".json":
            rows = _parsed(file)
            if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                return rows
            raise PeeralignError(f"{file} is no list of objects; give the file as it is published")
    raise PeeralignError(f"{file} is of an unknown kind; give a .parquet, .jsonl or .json file")


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise PeeralignError(
            f"{file} cannot be read as json ({error}); check the file or fetch it anew"
        ) from error


def _layout(file: Path, rows: Sequence[Row]) -> Callable[[Row], Row]:
    columns = dict.fromkeys(name for row in rows for name in row)
    for needed, layout in _LAYOUTS:
        if needed <= columns.keys():
            return layout
    known = "MLLM-as-a-Judge, VL-RewardBench or Multimodal RewardBench"
    raise PeeralignError(
        f"{file} is of no known layout ({known}): its columns are {listed(columns) or 'none'}"
    )


def _unique(table: pl.DataFrame) -> pl.DataFrame:
    """Ids that repeat get their row's number; so do items whose models repeat within a set.

    A pair's models repeat in either order, since pairs are shown in both; rankings of one item
    repeat whatever their models.
    """
    number = pl.format("{}/{}", "id", pl.int_range(1, pl.len() + 1))
    table = table.with_columns(
        id=pl.when(pl.col("id").is_duplicated()).then(number).otherwise("id")
    )
    models = pl.when(pl.col("ranking").is_null()).then(pl.col("models").list.sort())
    key = pl.struct("set", "item", models.list.join("\x1f"))
    item = pl.when(key.is_duplicated()).then(pl.format("{}/{}", "item", "id")).otherwise("item")
    return table.with_columns(item=item)


def _judge_score(row: Row) -> Row:
    try:
        score = float(row.get("human") or "")
    except (TypeError, ValueError):
        raise Unusable(f"no score: {row.get('human')!r:.40}") from None
    if not 1 <= score <= 5:
        raise Unusable(f"score out of range: {score:g}")
    answer = _answer({"name": row.get("name"), "answer": row.get("answer")})
    return {**_judge_row(row, "score_id", [answer]), "score": score}


def _judge_pair(row: Row) -> Row:
    verdict = {"A": "A", "B": "B", "C": "tie"}.get(str(row.get("human_answer")).strip())
    if verdict is None:
        raise Unusable(f"no verdict: {row.get('human_answer')!r:.40}")
    answers = [_answer(row.get(name)) for name in ("answer1", "answer2")]
    return {**_judge_row(row, "pair_id", answers), "verdict": verdict}


def _judge_batch(row: Row) -> Row:
    given = row.get("answers")
    answers = [_answer(entry) for entry in given] if isinstance(given, list) else []
    models = [model for model, _ in answers]
    if len(set(models)) < len(models):
        raise Unusable("two answers of one model")
    ranking = str(row.get("human_answer")).strip()
    places = [ord(letter) - ord("A") for letter in ranking]
    if sorted(places) != list(range(len(answers))) or not answers:
        raise Unusable(f"no ranking of its answers: {ranking!r:.40}")
    return {**_judge_row(row, "", answers), "ranking": [models[place] for place in places]}


def _judge_row(row: Row, id_column: str, answers: list[tuple[str, str]]) -> Row:
    item = _optional(row.get("id"))
    own_id = _optional(row.get(id_column))
    source = _optional(row.get("original_dataset")) or "all"
    return _entry(own_id or item, item, source, _question(row, "instruction"), answers)


def _vl_rewardbench(row: Row) -> Row:
    answers, ranks = row.get("response"), row.get("human_ranking")
    if not isinstance(answers, list) or len(answers) != 2:
        raise Unusable("not two answers")
    if not isinstance(ranks, list) or len(ranks) != 2 or any(not _is_rank(r) for r in ranks):
        raise Unusable(f"no ranking of two: {ranks!r:.40}")
    models = row.get("models")
    if not isinstance(models, list) or len(models) != 2 or not all(models):
        models = ["first", "second"]
    verdict = "tie" if ranks[0] == ranks[1] else "A" if ranks[0] < ranks[1] else "B"
    given = [
        _answer({"name": name, "answer": text}) for name, text in zip(models, answers, strict=True)
    ]
    own_id = _optional(row.get("id"))
    entry = _entry(own_id, None, _group(own_id or ""), _question(row, "query"), given)
    return {**entry, "verdict": verdict}


def _group(own_id: str) -> str:
    """The group in which the set's own script counts a row. Ids of no known start are VLFeedback's.

    On the 1,250 rows of the repository's file this gives the paper's 183, 749 and 318.
    """
    return _GROUPS.get(re.split("[_-]", own_id, maxsplit=1)[0], "general")


def _multimodal_rewardbench(row: Row) -> Row:
    verdict = {"Output1": "A", "Output2": "B"}.get(str(row.get("Better")))
    if verdict is None:
        raise Unusable(f"no verdict: {row.get('Better')!r:.40}")
    # The set does not say who wrote an answer.
    answers = [_answer({"name": name, "answer": row.get(name)}) for name in ("Output1", "Output2")]
    own_id = _optional(row.get("ID"))
    category = _category(_optional(row.get("Category")) or "all", (own_id or "").lower())
    return {**_entry(own_id, None, category, _question(row, "Text"), answers), "verdict": verdict}


def _category(category: str, own_id: str) -> str:
    """The parts in which the set's own script reports two of its categories."""
    if category == "safety":
        return "safety/bias" if own_id.startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if own_id.startswith("math") else "reasoning/coding"
    return category


_LAYOUTS: list[tuple[set[str], Callable[[Row], Row]]] = [
    ({"instruction", "name", "answer", "human"}, _judge_score),
    ({"instruction", "answer1", "answer2", "human_answer"}, _judge_pair),
    ({"instruction", "answers", "human_answer"}, _judge_batch),
    ({"query", "response", "human_ranking"}, _vl_rewardbench),
    ({"Text", "Output1", "Output2", "Better"}, _multimodal_rewardbench),
]


def _entry(
    own_id: str | None, item: str | None, source: str, question: str, answers: list[tuple[str, str]]
) -> Row:
    models, texts = zip(*answers, strict=True)
    reference = {"score": None, "verdict": None, "ranking": None}
    about = {"id": own_id, "item": item, "set": source, "question": question}
    return {**about, "models": list(models), "answers": list(texts), **reference}


def _answer(value: Any) -> tuple[str, str]:
    name = _optional(value.get("name")) if isinstance(value, dict) else None
    if name is None:
        raise Unusable("an answer of nobody")
    return name, _text(value, "answer")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"no {name}")
    return without_surrogates(value)


def _question(row: Row, name: str) -> str:
    question = _text(row, name).replace(IMAGE_MARK, "").strip()
    if not question:
        raise Unusable(f"no {name}")
    return question


def _optional(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return without_surrogates(str(value)).strip() or None


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _image(row: Row, images: ImageReader, needed: bool) -> Row | None:
    """The stored image: its bytes, or the absolute path of a file inside the root."""
    value = next((row[name] for name in ("image", "image_path", "Image") if row.get(name)), None)
    if needed:
        return images.read(value, "image")[0]
    data = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(data, bytes) and data:
        return {"bytes": data, "path": None}
    if isinstance(path, str) and path.strip():
        resolved, _, _ = images.root.place(without_surrogates(path))
        if resolved is not None:
            return {"bytes": None, "path": resolved}
    return None
