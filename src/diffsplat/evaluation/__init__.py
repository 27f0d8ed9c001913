"""Measuring models: image metrics, the noun judge, the colour judge."""
