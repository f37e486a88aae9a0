"""Why a detector found what it found: which pyramid level was listened to, and where."""
