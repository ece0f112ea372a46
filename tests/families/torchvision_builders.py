"""Tiny random checkpoints of the families whose processors need torchvision.

Import it only where torchvision can be imported (see offered.py). Everything of `transformers` that
needs torchvision is imported late, when a family is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from families.builders import (
    PATCH,
    SQUARE,
    TILE,
    VISION,
    WIDTH,
    template,
    text_settings,
    tokenizer_with,
)

# The chat format of Qwen's models, which others took over.
CHATML = {
    "user": "<|im_start|>{{ message['role'] }}\n",
    "end": "<|im_end|>\n",
    "reply": "<|im_start|>assistant\n",
}
CHATML_MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def llava_onevision() -> tuple[Any, Any]:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer = tokenizer_with(*CHATML_MARKS, adds_bos=False, video_token="<video>")
    grid = [[TILE * high, TILE * wide] for high in range(1, 4) for wide in range(1, 4)]
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=template(
            "<image>\n",
            user="<|im_start|>{{ message['role'] }} ",
            end="<|im_end|>",
            reply="<|im_start|>assistant\n",
        ),
    )
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**text_settings(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return config, processor


def qwen_tokenizer() -> Any:
    return tokenizer_with(
        *CHATML_MARKS,
        "<|vision_start|>",
        "<|vision_end|>",
        "<|object_ref_start|>",
        "<|box_start|>",
        adds_bos=False,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = ("image", "video")
    ids = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|{n}_pad|>") for n in names}
    for edge in ("start", "end"):
        ids[f"vision_{edge}_token_id"] = tokenizer.convert_tokens_to_ids(f"<|vision_{edge}|>")
    return ids


# From 4 to 24 tokens an image, by its size.
QWEN_IMAGE = {
    "size": {"shortest_edge": TILE**2, "longest_edge": 6 * TILE**2},
    "patch_size": PATCH,
    "merge_size": 2,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_heads": 4,
    "patch_size": PATCH,
    "out_hidden_size": WIDTH,
    "initializer_range": 0.15,
}
QWEN_MARKS = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen2_5_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**QWEN_IMAGE),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=2),
        chat_template=template(QWEN_MARKS, start=system, **CHATML),
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **text_settings(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        },
        # A window smaller than the image, and a layer that looks at all of it.
        vision_config={**QWEN_VISION, "window_size": TILE, "fullatt_block_indexes": [1]},
        **qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )
    return config, processor


def qwen3_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = qwen_tokenizer()
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**QWEN_IMAGE),
        tokenizer,
        Qwen3VLVideoProcessor(patch_size=PATCH, merge_size=2),
        chat_template=template(QWEN_MARKS, **CHATML),
    )
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**text_settings(tokenizer), "rope_parameters": rope},
        vision_config={
            **QWEN_VISION,
            "num_position_embeddings": (TILE // PATCH) ** 2,
            # Features of these layers are added to the first layers of the text model.
            "deepstack_visual_indexes": [0, 1],
        },
        **qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )
    return config, processor


def internvl() -> tuple[Any, Any]:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        Qwen2Config,
    )

    tokenizer = tokenizer_with(
        *CHATML_MARKS,
        adds_bos=False,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    num_tokens = (TILE // PATCH // 2) ** 2
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=6),
        tokenizer,
        InternVLVideoProcessor(size=SQUARE),
        image_seq_length=num_tokens,
        chat_template=template("<IMG_CONTEXT>\n", **CHATML),
    )
    config = InternVLConfig(
        text_config=Qwen2Config(**text_settings(tokenizer)),
        vision_config=InternVLVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=num_tokens,
        tie_word_embeddings=False,
    )
    return config, processor


def smolvlm() -> tuple[Any, Any]:
    from transformers import (
        LlamaConfig,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
        SmolVLMVisionConfig,
    )

    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = tokenizer_with(
        "<|im_start|>",
        *places,
        adds_bos=False,
        fake_image_token="<fake_token_around_image>",
        end_of_utterance_token="<end_of_utterance>",
        global_image_token="<global-img>",
        video_token="<video>",
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(
            size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}
        ),
        tokenizer,
        SmolVLMVideoProcessor(size={"longest_edge": TILE}),
        image_seq_len=(TILE // PATCH // 2) ** 2,
        chat_template=template(
            "<image>",
            start="<|im_start|>",
            user="{{ message['role'] | capitalize }}:",
            end="<end_of_utterance>\n",
            reply="Assistant:",
        ),
    )
    config = SmolVLMConfig(
        text_config=LlamaConfig(**text_settings(tokenizer)),
        vision_config=SmolVLMVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return config, processor


MISTRAL_TEMPLATE = {
    "image": "[IMG]",
    "user": "{% if message['role'] == 'user' %}[INST]{% endif %}",
    "end": "{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}",
}


def pixtral_parts(merge: int, start: str) -> tuple[Any, Any, Any]:
    """(tokenizer, processor, vision config); rows of an image end with a mark of their own."""
    from transformers import PixtralImageProcessor, PixtralProcessor, PixtralVisionConfig

    tokenizer = tokenizer_with(
        "[INST]",
        "[/INST]",
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[IMG_BREAK]",
        "[IMG_END]",
        image_token="[IMG]",
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 2 * TILE}, patch_size=PATCH * merge),
        tokenizer,
        patch_size=PATCH,
        spatial_merge_size=merge,
        chat_template=template(start="{{ bos_token }}" + start, **MISTRAL_TEMPLATE),
    )
    vision = PixtralVisionConfig(**{**VISION, "image_size": 2 * TILE})
    return tokenizer, processor, vision


def pixtral() -> tuple[Any, Any]:
    from transformers import LlavaConfig, MistralConfig

    tokenizer, processor, vision = pixtral_parts(merge=1, start="")
    config = LlavaConfig(
        text_config=MistralConfig(**text_settings(tokenizer), sliding_window=None),
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return config, processor


def mistral3() -> tuple[Any, Any]:
    from transformers import Mistral3Config, MistralConfig

    tokenizer, processor, vision = pixtral_parts(2, "[SYSTEM_PROMPT]Be short.[/SYSTEM_PROMPT]")
    config = Mistral3Config(
        text_config=MistralConfig(**text_settings(tokenizer), sliding_window=None),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return config, processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava-onevision": llava_onevision,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "pixtral": pixtral,
    "mistral3": mistral3,
}
