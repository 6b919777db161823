"""Tables as they come: cells of any frame, texts that stand for numbers, files."""
