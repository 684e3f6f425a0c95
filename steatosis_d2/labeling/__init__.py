"""Droplet labels without a trained model: the classical method that training data start from."""
