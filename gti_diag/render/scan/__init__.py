"""The scan of all rows as people read it: terminal, Markdown, HTML. Reads the scan document only."""
