"""From text to terms: analyzers by language."""
