"""The page of `pyrafuse app`: what it shows, in functions that know no browser, and its layout."""
