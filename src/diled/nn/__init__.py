"""Networks. They know torch and the contracts of `api.py`, and no mathematics of the models."""
