"""7. Fine-tuning: the encoder and the head trained together on each slide's most attended tiles.

`gradients` gives the gradient of a whole bag in bounded memory, `fit` trains with it, `tiles` reads the tiles ahead.
"""
