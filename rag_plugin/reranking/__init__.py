"""What a cross-encoder says of a query and a passage, and how that joins the score of retrieval."""
