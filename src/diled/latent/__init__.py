"""Working in the latent space: interpolation, attribute editing, search."""
