"""What a report is made from: the files of a run directory, read into tables and columns."""
