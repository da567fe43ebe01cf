"""What is learned from answers: how good they were, how good models are, and whom to ask next."""
