"""Everything that users look at: terminal tables, figures, HTML pages."""
