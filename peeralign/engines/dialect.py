"""What one server takes: it starts with all we would like, and gives up what is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)
NUM_ALTERNATIVES = 20
FEW_ALTERNATIVES = 5


class Dialect:
    """Words requests for one server.

    Compatible servers differ in the fields they take, and say so with a 400 or 422 that names the
    field. What a server has taken once is never given up.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.taken: set[str] = set()
        self._dropped: set[str] = set()
        self._length = "max_tokens"
        self._alternatives = NUM_ALTERNATIVES

    def word(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as this server takes them."""
        body = {name: value for name, value in fields.items() if name not in self._dropped}
        if "max_tokens" in body:
            body[self._length] = body.pop("max_tokens")
        if "top_logprobs" in body:
            body["top_logprobs"] = self._alternatives
        return body

    def took(self, body: Mapping[str, Any]) -> None:
        """Remember that a request with these fields was answered."""
        self.taken |= body.keys()

    def give_up(self, body: Mapping[str, Any], refusal: str) -> bool:
        """Word differently from now on, if the refusal names a field of `body` we can do without.

        False means that it names none.
        """
        said = refusal.casefold()
        if "max_tokens" in body and "max_completion_tokens" in said and "support" in said:
            return self._settle("max_tokens", "max_completion_tokens instead")
        if "logprobs" in body and ("logprobs" in said or "top_n_tokens" in said):
            if self._alternatives > FEW_ALTERNATIVES and "top_logprobs" not in self.taken:
                self._alternatives = FEW_ALTERNATIVES
                log.warning("%s refuses %d top_logprobs", self.where, NUM_ALTERNATIVES)
                return True
            return self._settle("top_logprobs") and self._settle("logprobs")
        if "response_format" in body and any(
            word in said for word in ("response_format", "json_schema", "guided", "grammar")
        ):
            return self._settle("response_format")
        if "seed" in body and re.search(r"\bseed\b", said):
            return self._settle("seed", "draws cannot be repeated")
        return False

    def drop(self, name: str) -> None:
        """Do without a field from now on."""
        self._settle(name)

    def _settle(self, name: str, consequence: str = "asking without") -> bool:
        if name in self.taken:
            return False
        if name == "max_tokens":
            self._length = "max_completion_tokens"
        else:
            self._dropped.add(name)
        log.warning("%s does not take %s: %s", self.where, name, consequence)
        return True
