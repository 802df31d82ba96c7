"""How a stage starts, fails and publishes, and what DVC watches of its code."""
