"""Word and character error rates with sclite's alignment, their intervals, and the files that report them."""
