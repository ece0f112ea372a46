"""MM-Vet (Yu et al., 2024): 218 open questions; a judge scores the replies later.

Authors' files (yuweihao/MM-Vet, mm-vet.zip): mm-vet.json, objects by id with imagename, question,
answer and capability, and the folder images. `answer` goes into the row for the judge, with its
<AND> and <OR>.
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import listed, text
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import PLAIN


def _item(row: Row, image: object, name: object, capabilities: object) -> Item:
    names = [part.strip() for each in listed(capabilities) for part in str(each).split(",")]
    keys = {"answer": text(row, "answer"), "capabilities": names}
    return Item(text(row, "question"), image, keys, id=name)


def _hub(row: Row) -> Item:
    return _item(row, row["image"], row["question_id"], row["capability"])


def _tsv(row: Row) -> Item:
    return _item(row, row.get("image"), row["index"], row["category"])


def _original(row: Row) -> Item:
    return _item(row, row["imagename"], row.get("id"), row["capability"])


LAYOUT = Layout(
    title="MM-Vet",
    forms=(
        Form(HUB, ("question_id", "question", "answer", "image", "capability"), _hub),
        Form(TSV, ("index", "question", "answer", "category"), _tsv),
        Form(
            ORIGINAL,
            ("imagename", "question", "answer", "capability"),
            _original,
            files=("mm-vet.json", "mm-vet/mm-vet.json"),
        ),
    ),
    prompt=PLAIN,
    hub="lmms-lab/MMVet",
    tsv=("MMVet.tsv",),
    original="https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip",
)
