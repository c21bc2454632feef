"""What is measured, a function each. Every one starts all that it needs and ends it."""
