"""What a file is, by its bytes alone: the sender's name and type are never believed."""
