"""How long a test waits for what must happen before it says that it never will."""

# Much more than needed: it only ends a test that would hang, and a machine may be busy.
PATIENCE_S = 300.0
