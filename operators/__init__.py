"""Pure operators: recipes in, recipes out; tensors in, tensors out. No files, no clocks, no Ray."""
