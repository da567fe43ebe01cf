"""Where models run: which deployment is asked, which ones rest, and how they are doing."""
