"""What is wrong with a data set, and how large its objects are."""
