"""HallusionBench as it is published; the authors' file has a question without a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv


def _row(category: str, figure: int, answer: str, **more: Any) -> dict[str, Any]:
    question = "Is the circle smaller?" if category == "VD" else "Did China lead in 2018?"
    subcategory = "illusion" if category == "VD" else "chart"
    row = {"category": category, "subcategory": subcategory, "visual_input": "1", "set_id": "4"}
    about = {"figure_id": str(figure), "sample_note": "circle", "question_id": "1"}
    details = {"gt_answer_details": "It is smaller.", "gt_answer": answer}
    return {**row, **about, "question": question, **details, **more}


def hub(folder: Path) -> Path:
    rows = [_row("VD", 0, "1", image=cell("red")), _row("VS", 1, "0", image=cell("blue"))]
    write_shard(folder / "data/image-00000-of-00001.parquet", rows)
    blind = [_row("VS", 0, "1", visual_input="0", image=None)]
    write_shard(folder / "data/non_image-00000-of-00001.parquet", blind)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": "hb_VD_illusion_4_0_1", "question": "Is the circle smaller?", "answer": "Yes"}
        | {"category": "VD", "l2-category": "VD_illusion", "image": base64_of("red")},
        {"index": "hb_VS_chart_4_1_1", "question": "Did China lead in 2018?", "answer": "No"}
        | {"category": "VS", "l2-category": "VS_chart", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "HallusionBench.tsv", rows)


def original(folder: Path) -> Path:
    names = {"VD/illusion/4_0.png": "red", "VS/chart/4_1.png": "blue"}
    write_images(folder / "hallusion_bench", names)
    rows = [
        _row("VD", 0, "1", filename="./VD/illusion/4_0.png"),
        _row("VS", 1, "0", filename="./VS/chart/4_1.png"),
        _row("VS", 0, "1", visual_input="0", filename=None),
    ]
    write_json(folder / "HallusionBench.json", rows)
    return folder
