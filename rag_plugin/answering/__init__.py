"""Answers from the documents alone: every sentence with its source, or the plain word that they do not say."""
