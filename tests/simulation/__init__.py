"""The whole library against a model, from one seed. `python -m tests.simulation --help`."""
