"""What training leaves behind for others: stored files and registered versions."""
