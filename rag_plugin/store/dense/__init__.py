"""The dense leg: nearest vectors, exact or through codes with an exact second look.

What trains and extends the codes in the background is `rag_plugin.store.dense_upkeep`.
"""
