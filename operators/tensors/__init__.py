"""Named tensors: a model's weights, seeded noise, low-rank factors. Below merges and builds; knows no merge method."""
