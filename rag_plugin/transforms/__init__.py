"""What query transforms are made of: variants, prompts, guarded LLM calls, parsing of hostile output."""
