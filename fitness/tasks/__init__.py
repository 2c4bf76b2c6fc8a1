"""Tasks: examples in splits and the metric that scores them, read from a config and checked.

`spec` has the config's side and its checks, `task` what a search uses. Metrics and engines do not belong here.
"""
