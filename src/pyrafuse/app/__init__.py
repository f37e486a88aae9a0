"""What a person sees in a browser: the page of the demo."""
