"""Marketplaces as they are talked to: what is asked, what is sent, and within which limits."""
