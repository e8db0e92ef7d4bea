"""Models: the autoencoder, its priors, the zoo of the family, and saving and loading."""

from diled._callable import make_callable

make_callable(__name__, "models")
