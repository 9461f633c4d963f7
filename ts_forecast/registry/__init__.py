"""What training leaves behind for others: stored files and registered versions.

Where do I go to …?
- write files whole or not at all, and check them: ``artifacts``
- give a fitted model its version: ``versions``
"""
