"""What a run is made of before its search begins, and what a resumed run starts from."""
