"""From a verdict to what a reviewer decides from: the report, its charts, the comment, the required check."""
