"""After the search: choose the winner on select, score it and the baselines on test.

How a winner is chosen (`selection`) is a pure function; the other modules evaluate and record.
"""
