"""Looks at a workspace and changes nothing: stages, folders, lengths, splits and what they have in common."""
