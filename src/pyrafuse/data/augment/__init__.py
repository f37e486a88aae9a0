"""Random changes of a sample, and the settings of them."""
