"""The demo: a generated data set, a small detector, and a page of what it learnt."""
