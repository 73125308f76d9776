"""What other systems bring by protocols of their own: 1C's exchange with a web site."""
