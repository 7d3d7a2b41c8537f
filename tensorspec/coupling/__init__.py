"""How tensors of one fit are tied to each other beyond the modes that they share."""
