"""What predictions leave behind, an output format a class."""
