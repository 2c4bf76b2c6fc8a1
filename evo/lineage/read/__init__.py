"""Reading a lineage: the tables of one run or of many, and the questions asked of them."""
