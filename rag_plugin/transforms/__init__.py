"""What query transforms are made of: variants, guarded LLM calls, parsing of hostile output, looks at the corpus."""
