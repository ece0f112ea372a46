"""MMHal-Bench as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import write_images, write_json


def original(folder: Path) -> Path:
    write_images(folder / "images", {"93_o.jpg": "red", "25_o.jpg": "blue"})
    address = "https://farm4.staticflickr.com/3126"
    rows = [
        {"question_type": "attribute", "question_topic": "indoor", "image_id": "0123"}
        | {"image_src": f"{address}/93_o.jpg", "image_content": ["Fire hydrant", "Street"]}
        | {"question": "What color is the fire hydrant cap?", "gt_answer": "Yellow."}
        | {"model_name": "", "model_answer": ""},
        {"question_type": "counting", "question_topic": "food", "image_id": "0456"}
        | {"image_src": f"{address}/25_o.jpg", "image_content": ["Cup"]}
        | {"question": "How many cups are there?", "gt_answer": "None."}
        | {"model_name": "", "model_answer": ""},
    ]
    return write_json(folder / "response_template.json", rows).parent
