"""How wrong predictions are: pure functions of tensors, unreduced; the criterion weighs and normalises."""
