"""The command line: parse, call, print; the one place where a slow import may stand inside a function."""
