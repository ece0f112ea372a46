"""Turn (image, text) into the prompt a model's own chat template writes, for any processor.

Engines and training share this file, so a model is asked in training exactly as it is asked in
generation and judging.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from peeralign.errors import PeeralignError
from peeralign.escape import Escaper

_IMAGE_SLOT = "\x00text\x00"


def image_token(processor: Any) -> str:
    """The placeholder that stands for the image in a rendered prompt."""
    token = getattr(processor, "image_token", None)
    if token is None:
        raise PeeralignError(
            f"the processor {type(processor).__name__} has no image token, so it cannot place an "
            "image in a prompt; use a vision-language checkpoint with its own processor"
        )
    return token if isinstance(token, str) else str(token)


class ChatFormat:
    """Renders prompts for one processor. Built once per loaded model."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token = image_token(processor)
        if processor.chat_template is None:
            raise PeeralignError(
                f"the processor {type(processor).__name__} has no chat template, so "
                "peeralign cannot know how this model wants to be asked; "
                "add chat_template.jinja to its folder"
            )
        message = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _IMAGE_SLOT}]}
        ]
        try:
            rendered = processor.apply_chat_template(message, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise PeeralignError(
                f"the chat template of {type(processor).__name__} fails on a user's image and text "
                f"({error}); use the template its model card shows"
            ) from error
        if rendered.count(_IMAGE_SLOT) != 1 or self.image_token not in rendered:
            raise PeeralignError(
                f"the chat template of {type(processor).__name__} drops the image or the text of a "
                "message; use the template its model card shows"
            )
        self.before, self.after = rendered.split(_IMAGE_SLOT)
        self.escaper = Escaper(self.tokenizer, processor, self.before, self.after)
        self.controls = self.escaper.controls
        # Only then can several texts share one image's computation.
        self.image_first = self.image_token not in self.after
        # A tokenizer that adds its own BOS must not add a second one to the template's.
        bos = self.tokenizer.bos_token
        self.template_has_bos = bool(bos) and rendered.startswith(bos)
        self.end_id = self._end_of_turn(message)

    def _end_of_turn(self, message: list[dict[str, Any]]) -> int:
        """The special token the template writes after a reply (Gemma 3's is not its EOS)."""
        reply = {"role": "assistant", "content": [{"type": "text", "text": _IMAGE_SLOT * 2}]}
        try:
            rendered = self.processor.apply_chat_template([*message, reply])
        except (TemplateError, TypeError, ValueError, KeyError):
            return self.tokenizer.eos_token_id
        behind = rendered.rpartition(_IMAGE_SLOT * 2)[2].lstrip()
        ends = [control for control in self.controls if behind.startswith(control)]
        return (
            self.tokenizer.convert_tokens_to_ids(ends[0]) if ends else self.tokenizer.eos_token_id
        )

    def prompt(self, text: str) -> str:
        """The whole prompt of a user turn: image, `text`, and the start of the reply.

        Control strings in `text` stay text. Raises ValueError where that cannot be done.
        """
        return self.before + self.escaper.in_prompt(text) + self.after

    def split_prompt(self, text: str) -> tuple[str, str]:
        """The prompt cut behind the image: (shared by all texts on this image, the rest)."""
        if not self.image_first:
            return self.prompt(text), ""
        cut = self.before.rfind(self.image_token) + len(self.image_token)
        return self.before[:cut], self.before[cut:] + self.escaper.in_prompt(text) + self.after

    def text_ids(self, text: str) -> list[int]:
        """Token ids of plain text; control strings in it stay text."""
        plain = self.escaper.alone(text)
        return self.tokenizer(plain, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of prompt text behind the image (the template's control strings count).

        Some tokenizers treat the start of a text apart, so the text is put where it will stand.
        """
        ids = self.tokenizer(self.image_token + text, add_special_tokens=False)["input_ids"]
        return ids[ids.index(self.tokenizer.convert_tokens_to_ids(self.image_token)) + 1 :]

    def response_ids(self, text: str) -> list[int]:
        """Token ids of a reply in training: its text, then end of turn."""
        return [*self.text_ids(text), self.end_id]

    def encode(self, prompts: list[str], images: list[Any]) -> dict[str, Any]:
        """Left-padded model inputs for a batch of (prompt, one image), as PyTorch tensors."""
        self.tokenizer.padding_side = "left"
        batch = self.processor(
            text=prompts,
            images=[[image] for image in images],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self.template_has_bos,
        )
        # PaliGemma's processor adds labels; with them the model computes a loss of its own.
        return {name: value for name, value in batch.items() if name != "labels"}
