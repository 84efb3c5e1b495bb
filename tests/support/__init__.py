"""What several test rooms share: small models of every family, and an independent eager token merging."""
