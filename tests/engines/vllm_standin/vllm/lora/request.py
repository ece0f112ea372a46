"""The adapter of one call, with the names and checks of vLLM 0.32."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    base_model_name: str | None = None
    load_inplace: bool = False
    is_3d_lora_weight: bool = False

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        assert os.path.isfile(os.path.join(self.lora_path, "adapter_model.safetensors"))
