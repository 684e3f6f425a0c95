"""Which regions of slides are worth an expert's time, as tiles to screen and to train from."""
