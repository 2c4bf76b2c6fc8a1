"""Following a run while it goes on, in the browser and in the terminal, from its folder alone."""
