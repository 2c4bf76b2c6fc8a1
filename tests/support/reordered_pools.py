"""A pool whose results come in an order of the test's choice."""


class ReorderedPool:
    """A LocalPool from which ``choose`` takes the next of the pending keys, oldest first."""

    def __init__(self, inner, choose) -> None:
        self.inner, self.choose = inner, choose
        self.keys: list[int] = []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def submit(self, job):
        self.keys.append(self.inner.submit(job))
        return self.keys[-1]

    def cancel(self, keys):
        cancelled = self.inner.cancel(keys)
        self.keys = [key for key in self.keys if key not in cancelled]
        return cancelled

    def wait(self, keys=None):
        key = self.choose([key for key in self.keys if keys is None or key in keys])
        self.keys.remove(key)
        return self.inner.wait([key])
