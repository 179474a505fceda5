"""A client's side of a round: one class for each state, and the machine that holds exactly one of them."""
