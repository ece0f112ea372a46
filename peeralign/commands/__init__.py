"""The commands, one family a file; `cli` gathers them."""
