"""What calls cost: dated prices, where each is from, and the rates of every kind of unit."""
