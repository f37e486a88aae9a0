"""Ways to propose the next candidate, one a file: each is a function of the trials so far and of a random generator."""
