"""The classroom's three peers: tiny, untrained LLaVA models with three different language models.

Ordinary `transformers` checkpoints: `AutoModelForImageTextToText` and `AutoProcessor` load them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peeralign.classroom.skills import DESCRIBE, SKILLS
from peeralign.classroom.world import CELL_PX, COLOURS, IMAGE_PX
from peeralign.errors import PeeralignError, nearest

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

# name -> (text architecture, skills hardly seen in base training).
# Each skill is known by two peers and weak in one (see docs/design/classroom.md).
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ada": ("llama", ("arithmetic", "colour", "relation")),
    "ben": ("mistral", ("chart", "shape", "presence")),
    "cleo": ("qwen2", ("read", "compare", "count")),
}
WIDTH = 128
NUM_TEXT_LAYERS = 3
# 0.02, the usual value, leaves models this narrow almost unable to start: see docs/log.md.
INITIALIZER_RANGE = 0.08
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
# One token a word, a number, a template mark or a key of a verdict; bytes spell the rest.
_PIECES = r""" ?[{,]? ?"[a-z]+":| ?[A-Z]+:| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"""


def _corpus() -> list[str]:
    from peeralign.judging.rubric import load_rubric

    rubric = load_rubric("classroom")
    lines = [DESCRIBE, *(f"{c} bar blank" for c in COLOURS), *(str(n) for n in range(26))]
    lines += [answer for skill in SKILLS.values() for answer in skill.answers]
    lines += [
        "what colour is the circle? what shape is red? what is the digit?",
        "which cell is the cross in? which digit is larger? what is the sum of the digits?",
        "how tall is the red bar? which bar is tallest?",
        "is there a red circle? is there an orange cross?",
        "where is the circle from the square?",
        "how many triangles? how many crosses? squares circles",
        *rubric.fill("what is the digit?", ["red"]),
        rubric.form().write([1, 2, 3, 4, 5]),
        " ASSISTANT: GRADE:",
    ]
    return [line for line in lines for _ in range(3)]


def build_processor() -> LlavaProcessor:
    """A LLaVA processor over a byte-level BPE tokenizer that knows the classroom's words."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Prepend(" ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    core.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=2000,
            min_frequency=2,
            show_progress=False,
            special_tokens=["<pad>", "</s>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )
    images = CLIPImageProcessorPil(
        size={"height": IMAGE_PX, "width": IMAGE_PX},
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.3, 0.3, 0.3],
        image_std=[0.3, 0.3, 0.3],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=CELL_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _text_config(architecture: str, vocab_size: int, eos_token_id: int, pad_token_id: int) -> Any:
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": NUM_TEXT_LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    if architecture == "mistral":
        return MistralConfig(num_key_value_heads=2, sliding_window=None, **settings)
    if architecture == "qwen2":
        return Qwen2Config(num_key_value_heads=2, **settings)
    return LlamaConfig(num_key_value_heads=4, **settings)


def build_model(
    architecture: str, processor: LlavaProcessor, seed: int
) -> LlavaForConditionalGeneration:
    """An untrained peer of about 0.9M parameters: a ViT of one layer, a text model of three."""
    import torch
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        text_config=_text_config(
            architecture, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=IMAGE_PX,
            patch_size=CELL_PX,
            initializer_range=INITIALIZER_RANGE,
            initializer_factor=2.0,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_PX // CELL_PX) ** 2,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save_peer(model: Any, processor: Any, folder: Path) -> None:
    """Write an ordinary checkpoint folder (safetensors)."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def shipped_peer(name: str) -> Path:
    """The folder of a peer's weights in the package. Raises PeeralignError for unknown names."""
    from importlib import resources

    folder = Path(str(resources.files("peeralign.classroom"))) / "weights" / name
    if name not in PEERS or not folder.is_dir():
        raise PeeralignError(
            f"no classroom peer named '{name}', there are {', '.join(PEERS)}{nearest(name, PEERS)}"
        )
    return folder
