"""Other libraries' formats: what they can hold exactly is written and read, the rest is refused."""
