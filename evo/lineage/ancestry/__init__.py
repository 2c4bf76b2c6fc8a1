"""Who descends from whom: parents and children as numbers, and the founders' shares of a recipe."""
