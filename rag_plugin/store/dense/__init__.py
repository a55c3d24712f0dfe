"""The dense leg: nearest vectors, exact or through codes with an exact second look."""
