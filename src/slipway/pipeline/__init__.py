"""The stages validate, split, train, evaluate and gate. Stages exchange data only through files."""
