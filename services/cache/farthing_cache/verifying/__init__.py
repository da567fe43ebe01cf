"""Whether two questions may share an answer: vetoes, features, learned heads and their training. Similarity proposes; this disposes."""
