"""Training: any density, in stages, through Lightning's Trainer."""
