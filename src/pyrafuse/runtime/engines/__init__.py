"""What runs exported files, a library a module."""
