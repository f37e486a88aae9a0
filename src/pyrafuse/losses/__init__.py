"""How wrong predictions are, unreduced; a criterion normalises."""
