"""Vocabularies and tied heads: what models disagree on, and aligned copies where they do."""
