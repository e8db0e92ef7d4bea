"""Models: the autoencoder, its priors, the zoo of the family, and saving and loading."""
