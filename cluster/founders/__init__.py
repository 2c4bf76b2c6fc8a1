"""Founders: checkpoints and adapters by memory map, content digests, and transfer to other machines."""
