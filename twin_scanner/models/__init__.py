"""What a model is: partition, Plan, networks, card and package, and the store that keeps packages."""
