"""What the operator's verbs print, in both languages."""
