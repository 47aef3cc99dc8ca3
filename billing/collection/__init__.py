"""Collection: an open bill is charged by payment link or add-on, and money that arrives is allocated once."""
