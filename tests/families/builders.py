"""Tiny random checkpoints of the families of vision-language models, built as their makers do.

Every family has its own marks around an image, its own number of image tokens and its own masks;
the text tokenizer is the classroom's, with the family's special tokens added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3Processor,
    Idefics3VisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from peeralign.classroom.peers import build_processor

TILE, PATCH = 32, 8
WIDTH = 64
BODY = (
    "{{% for message in messages %}}{user}{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{{% endfor %}}{end}{{% endfor %}}{{% if add_generation_prompt %}}{reply}{{% endif %}}"
)
SQUARE = {"height": TILE, "width": TILE}
LAYERS = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.15,
}
VISION = {**LAYERS, "image_size": TILE, "patch_size": PATCH}


def template(image: str, start: str = "", user: str = "", end: str = "", reply: str = "") -> str:
    return start + BODY.format(image=image, user=user, end=end, reply=reply)


def tokenizer_with(*specials: str, adds_bos: bool = True, **named: str) -> Any:
    """The classroom's tokenizer with a BOS of its own and more special tokens.

    `named` become attributes of the tokenizer, such as `boi_token`.
    """
    tokenizer = build_processor().tokenizer
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.add_tokens([*specials, *named.values()], special_tokens=True)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A",
            pair="<s> $A $B",
            special_tokens=[("<s>", tokenizer.bos_token_id)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        extra_special_tokens={"image_token": "<image>", **named},
        padding_side="left",
    )


def text_settings(tokenizer: Any) -> dict[str, Any]:
    return {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "head_dim": WIDTH // 4,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Tied, a random model only repeats the token it read last.
        "tie_word_embeddings": False,
    }


def llava(template_writes_bos: bool) -> tuple[Any, Any]:
    tokenizer = tokenizer_with()
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=SQUARE, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(
            "<image>\n",
            start="{{ bos_token }}" if template_writes_bos else "",
            user="USER: ",
            reply=" ASSISTANT:",
        ),
    )
    config = LlavaConfig(
        text_config=LlamaConfig(**text_settings(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(TILE // PATCH) ** 2,
    )
    return config, processor


def llava_next() -> tuple[Any, Any]:
    tokenizer = tokenizer_with()
    grid = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE}, crop_size=SQUARE, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n", user="[INST] ", end=" [/INST]"),
    )
    config = LlavaNextConfig(
        text_config=LlamaConfig(**text_settings(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return config, processor


def idefics3() -> tuple[Any, Any]:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = tokenizer_with(
        "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *places
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(
            size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}
        ),
        tokenizer,
        image_seq_len=(TILE // PATCH // 2) ** 2,
        chat_template=template(
            "<image>",
            start="{{ bos_token }}",
            user="User:",
            end="<end_of_utterance>\n",
            reply="Assistant:",
        ),
    )
    config = Idefics3Config(
        text_config=LlamaConfig(**text_settings(tokenizer)),
        vision_config=Idefics3VisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return config, processor


def gemma3() -> tuple[Any, Any]:
    tokenizer = tokenizer_with(
        "<start_of_turn>",
        "<end_of_turn>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size=SQUARE),
        tokenizer,
        image_seq_length=4,
        chat_template=template(
            "<start_of_image>",
            start="{{ bos_token }}",
            user="<start_of_turn>user\n",
            end="<end_of_turn>\n",
            reply="<start_of_turn>model\n",
        ),
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=Gemma3TextConfig(
            # Shorter than the prompts, so that the window matters.
            **text_settings(tokenizer),
            sliding_window=24,
            query_pre_attn_scalar=WIDTH // 4,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config=SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image>"),
        tie_word_embeddings=False,
    )
    return config, processor


def paligemma() -> tuple[Any, Any]:
    tokenizer = tokenizer_with(adds_bos=False)
    processor = PaliGemmaProcessor(
        SiglipImageProcessorPil(size=SQUARE, image_seq_length=(TILE // PATCH) ** 2),
        tokenizer,
        chat_template=template("<image>"),
    )
    config = PaliGemmaConfig(
        text_config=GemmaConfig(**text_settings(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        tie_word_embeddings=False,
    )
    return config, processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": lambda: llava(template_writes_bos=False),
    "llava-bos": lambda: llava(template_writes_bos=True),
    "llava-next": llava_next,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "paligemma": paligemma,
}
