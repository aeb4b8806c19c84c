"""Where files are and what is read from them: folders, archives and remote stores, texts and their limits."""
