"""The stages validate, split, train, evaluate and gate. A stage only reads and writes files."""
