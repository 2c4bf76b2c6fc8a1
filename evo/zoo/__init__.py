"""The demo zoo: a tiny world, a base model and ten founders trained on it, in minutes on two cores."""
