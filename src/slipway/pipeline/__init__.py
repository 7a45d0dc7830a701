"""The stages validate, split, train, evaluate and gate. They only read and write files."""
