"""Commands that measure: a table is a list of configurations and how to render it beside the paper's numbers."""
