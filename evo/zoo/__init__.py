"""The demo zoo: a tiny world, a base model and ten founders trained on it in minutes on two cores.

Here: its tasks, its training and its files. Not here: anything that a run on real models needs.
"""
