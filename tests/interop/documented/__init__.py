"""pynetdicom's documented examples: the pages, how they are played, and what each of them is to do."""
