"""Many runs from one file: a grid over configuration keys, resumable, ending in one table."""
